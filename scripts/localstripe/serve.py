"""Serves localstripe on a free port of the loopback interface and prints its URL.

Its own main listens on every interface and writes its state to a fixed file in
the system's temporary directory, which two at once would share.
"""

import asyncio
import socket

from aiohttp import web

from localstripe import resources
from localstripe.server import app

resources.Store.dump_to_disk = lambda _: None


async def serve():
    runner = web.AppRunner(app)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener).start()
    print("http://127.0.0.1:%d" % listener.getsockname()[1], flush=True)
    await asyncio.Event().wait()


asyncio.run(serve())
