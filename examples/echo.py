"""An echo server: the caller hears what the caller says.

    python examples/echo.py --port 9000

and in the dialplan, on one line:

    <action application="listen" data='{"url": "ws://127.0.0.1:9000",
      "bidirectionalAudio": {"enabled": true, "streaming": true, "sampleRate": 8000}}'/>
"""

import argparse
import asyncio
import contextlib
import json

from websockets.asyncio.server import ServerConnection, serve


async def echo(websocket: ServerConnection) -> None:
    """Serves one call: one text frame about it, then audio both ways."""
    call = json.loads(await websocket.recv())
    caller = call.get("from", "unknown")
    print(f"call {call['callSid']} from {caller}, {call['sampleRate']} Hz", flush=True)
    async for message in websocket:
        if isinstance(message, bytes):  # 20 ms of L16 audio
            await websocket.send(message)
        else:  # a digit, for example
            print(message, flush=True)
    print("call ended", flush=True)


async def main() -> None:
    """Serves calls until Ctrl-C."""
    parser = argparse.ArgumentParser(description="echo server for the listen verb")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default=9000, type=int, help="0 = any free port")
    args = parser.parse_args()
    async with serve(echo, args.host, args.port, compression=None) as server:
        host, port = server.sockets[0].getsockname()[:2]
        print(f"listening on ws://{host}:{port}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
