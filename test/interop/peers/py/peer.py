"""A py-libp2p peer driven by one JSON object per line: commands on stdin, answers on stdout, logs on stderr.

The contract is in ../README.md; py has its connect, disconnect, peers, ping, identify, echo, send, stats and stop, and
the commands of pubsub in lab_pubsub.py.
"""

import argparse
import base64
import json
import os
import re
import ssl
import sys
import time
from pathlib import Path

import trio
from libp2p import create_mplex_muxer_option, create_yamux_muxer_option, new_host
from libp2p.crypto.ed25519 import create_new_key_pair as create_ed25519
from libp2p.crypto.rsa import create_new_key_pair as create_rsa
from libp2p.crypto.secp256k1 import create_new_key_pair as create_secp256k1
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.ping import ID as PING
from libp2p.identity.identify.identify import ID as IDENTIFY
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.io.utils import read_exactly
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise
from libp2p.security.tls.transport import PROTOCOL_ID as TLS
from libp2p.security.tls.transport import TLSTransport
from lab_pubsub import Gossip, add_pubsub_flags
from multiaddr import Multiaddr

CHUNK_BYTES = 64 * 1024
KEYS = {"ed25519": create_ed25519, "rsa": create_rsa, "secp256k1": create_secp256k1}


def flags():
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", action="append")
    parser.add_argument("--security", default="noise", choices=["noise", "tls", "noise,tls", "tls,noise"])
    parser.add_argument("--muxer", default="yamux", choices=["yamux", "mplex"])
    parser.add_argument("--key", default="ed25519", choices=KEYS)
    parser.add_argument("--tls-cert")
    parser.add_argument("--tls-key")
    parser.add_argument("--tls-ca")
    parser.add_argument("--psk")
    add_pubsub_flags(parser)
    return parser.parse_args()


def stack(options):
    """What the host is made of."""
    key_pair = KEYS[options.key]()
    made = {
        "noise": lambda: (NOISE, Noise(key_pair, noise_privkey=create_noise_key_pair().private_key)),
        "tls": lambda: (TLS, TLSTransport(key_pair)),
    }
    server = client = None
    if options.tls_cert:
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.load_cert_chain(options.tls_cert, options.tls_key)
    if options.tls_ca:
        client = ssl.create_default_context(cafile=options.tls_ca)
    return {
        "key_pair": key_pair,
        "sec_opt": dict(made[name]() for name in options.security.split(",")),
        "muxer_opt": create_yamux_muxer_option() if options.muxer == "yamux" else create_mplex_muxer_option(),
        "tls_server_config": server,
        "tls_client_config": client,
        # The last line of a swarm.key file.
        "psk": Path(options.psk).read_text().split()[-1] if options.psk else None,
    }


async def chunks(stream):
    while True:
        try:
            data = await stream.read(CHUNK_BYTES)
        except StreamEOF:
            return
        if not data:
            return
        yield data


async def collect(stream):
    return b"".join([data async for data in chunks(stream)])


async def echo(stream):
    async for data in chunks(stream):
        await stream.write(data)
    await stream.close()


async def sink(stream):
    count = 0
    async for data in chunks(stream):
        count += len(data)
    await stream.write(count.to_bytes(8, "big"))
    await stream.close()


async def write_zeros(stream, count):
    while count > 0:
        size = min(count, CHUNK_BYTES)
        await stream.write(bytes(size))
        count -= size
    await stream.close()


async def source(stream):
    await write_zeros(stream, int.from_bytes(await read_exactly(stream, 8), "big"))


async def reset(stream):
    await stream.read(1)
    await stream.reset()


async def perf(stream):
    count = int.from_bytes(await read_exactly(stream, 8), "big")
    async for _ in chunks(stream):
        pass
    await write_zeros(stream, count)


HANDLERS = {"/echo/1.0.0": echo, "/sink/1.0.0": sink, "/source/1.0.0": source, "/reset/1.0.0": reset, "/perf/1.0.0": perf}


def split_messages(raw):
    """The bodies of varint-prefixed messages."""
    at = 0
    while at < len(raw):
        size = shift = 0
        while True:
            byte = raw[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if at + size > len(raw):
            raise ValueError(f"identify message of {len(raw)} bytes is cut short")
        yield raw[at : at + size]
        at += size


class Lab:
    def __init__(self, host):
        self.host = host
        self.gossip = None

    async def target(self, request):
        if "addr" in request:
            info = info_from_p2p_addr(Multiaddr(request["addr"]))
            await self.host.connect(info)
            return info.peer_id
        return ID.from_base58(request["peer"])

    async def connect(self, request):
        return {"peer": str(await self.target(request))}

    async def disconnect(self, request):
        await self.host.disconnect(await self.target(request))

    async def peers(self, request):
        peers = []
        for peer in self.host.get_connected_peers():
            connections = self.host.get_network().connections.get(peer, [])
            streams = sum(len(connection.get_streams()) for connection in connections)
            peers.append({"peer": str(peer), "connections": len(connections), "streams": streams})
        return {"peers": peers}

    async def open(self, request, protocol=None):
        name = protocol or request.get("protocol", "/echo/1.0.0")
        return await self.host.new_stream(await self.target(request), [TProtocol(name)])

    async def ping(self, request):
        # By hand: the library's own rounds to milliseconds.
        stream = await self.open(request, PING)
        rtts = []
        for _ in range(request.get("count", 1)):
            sent = os.urandom(32)
            start = time.perf_counter()
            await stream.write(sent)
            if await read_exactly(stream, 32) != sent:
                raise ValueError("the ping reply differs")
            rtts.append((time.perf_counter() - start) * 1000)
        await stream.close()
        return {"rttMs": rtts}

    async def identify(self, request):
        stream = await self.open(request, IDENTIFY)
        raw = await collect(stream)
        await stream.close()
        message = Identify()
        for part in split_messages(raw):
            message.MergeFromString(part)
        return {
            "agent": message.agent_version,
            "protocolVersion": message.protocol_version,
            "protocols": list(message.protocols),
            "listenAddrs": [str(Multiaddr(addr)) for addr in message.listen_addrs],
            "observedAddr": str(Multiaddr(message.observed_addr)) if message.observed_addr else "",
            "publicKey": base64.b64encode(message.public_key).decode(),
            "raw": base64.b64encode(raw).decode(),
        }

    async def echo(self, request):
        stream = await self.open(request)
        result = []
        async with trio.open_nursery() as nursery:

            async def read():
                result.append(await collect(stream))

            nursery.start_soon(read)
            await stream.write(base64.b64decode(request.get("bytes", "")))
            await stream.close_write()
        await stream.close()
        return {"bytes": base64.b64encode(result[0]).decode()}

    async def send(self, request):
        stream = await self.open(request)
        await stream.write(base64.b64decode(request.get("bytes", "")))
        await stream.close()

    async def stats(self, request):
        with open("/proc/self/status") as status:
            kib = int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1))
        return {"rssBytes": kib * 1024, "pid": os.getpid()}


COMMANDS = {"connect", "disconnect", "peers", "ping", "identify", "echo", "send", "stats"}


def show(value):
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def reason(error):
    """One line for an error, with the first cause of a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


async def run(lab, request):
    answer = {}
    try:
        if request["cmd"] not in COMMANDS | Gossip.COMMANDS:
            raise ValueError(f"no such command: {request['cmd']}")
        with trio.fail_after(request.get("timeoutMs", 60_000) / 1000):
            if request["cmd"] in Gossip.COMMANDS:
                if lab.gossip is None:
                    raise ValueError("this peer runs without --pubsub")
                answer = await getattr(lab.gossip, request["cmd"])(request) or {}
            else:
                answer = await getattr(lab, request["cmd"])(request) or {}
        answer["ok"] = True
    except Exception as error:
        answer = {"ok": False, "error": reason(error)}
    show({**answer, "id": request["id"]})


async def main():
    options = flags()
    listen = [Multiaddr(addr) for addr in options.listen or ["/ip4/127.0.0.1/tcp/0"]]
    host = new_host(**stack(options), listen_addrs=listen)
    async with host.run(listen_addrs=listen), trio.open_nursery() as nursery:
        for protocol, handler in HANDLERS.items():
            host.set_stream_handler(TProtocol(protocol), handler)
        lab = Lab(host)
        if options.pubsub:
            lab.gossip = Gossip(host, options, nursery, show)
            await lab.gossip.start()
        addrs = [str(addr.decapsulate_code(421)) for addr in host.get_addrs()]
        peer_id = str(host.get_id())
        show({"event": "listening", "peerId": peer_id, "addrs": [f"{addr}/p2p/{peer_id}" for addr in addrs]})
        while line := await trio.to_thread.run_sync(sys.stdin.buffer.readline, abandon_on_cancel=True):
            request = json.loads(line)
            if request["cmd"] == "stop":
                show({"ok": True, "id": request["id"]})
                break
            nursery.start_soon(run, lab, request)
        # Closing politely may wait for peers that are gone.
        sys.stdout.flush()
        os._exit(0)


trio.run(main)
