"""The README's picture of the page, taken in Chromium:

    python tools/screenshot.py runs/train/model.safetensors photo.jpg images/app.jpg"""
import shutil, socket, subprocess, sys
from playwright.sync_api import sync_playwright

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def shoot(url, photo, out, size=(1280,800)):
    "Open the page, drop a photograph, wait for its boxes, write a JPEG"
    exe = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if exe is None: sys.exit('no browser: install chromium')
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=exe, args=['--no-sandbox', '--disable-gpu', '--disable-background-networking'])
        page = browser.new_page(viewport=dict(width=size[0], height=size[1]))
        page.set_default_timeout(120_000)
        page.goto(url)
        page.wait_for_selector('#drop input[type=file]', state='attached')
        page.set_input_files('#drop input[type=file]', photo)
        page.wait_for_selector('.box')
        page.wait_for_timeout(2000)
        page.screenshot(path=out, type='jpeg', quality=80)
        browser.close()

if __name__=='__main__':
    model,photo,out = sys.argv[1:]
    port = free_port()
    app  = subprocess.Popen(['ssd-app', model, '--port', str(port)], stdout=subprocess.PIPE, text=True)
    try:
        if 'http' not in app.stdout.readline(): sys.exit('ssd-app did not start')
        shoot(f'http://127.0.0.1:{port}', photo, out)
    finally: app.terminate()
