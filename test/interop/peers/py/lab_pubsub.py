"""GossipSub and FloodSub of py-libp2p."""

import base64
import hashlib

from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.pubsub.floodsub import FloodSub
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub, get_peer_and_seqno_msg_id
from libp2p.tools.anyio_service import background_trio_service
import trio

FLOODSUB = "/floodsub/1.0.0"
# 1.4.0 and 2.0.0 are of no specification.
VERSIONS = ["1.3.0", "1.2.0", "1.1.0", "1.0.0"]


def add_pubsub_flags(parser):
    parser.add_argument("--pubsub", choices=["gossip", "flood"])
    parser.add_argument("--pubsub-sign", default="strict", choices=["strict", "none"])
    parser.add_argument("--pubsub-version", default="1.3.0", choices=[*VERSIONS, "floodsub"])
    parser.add_argument("--pubsub-heartbeat-ms", type=int, default=1000)


def offered(version):
    if version == "floodsub":
        return [TProtocol(FLOODSUB)]
    known = VERSIONS[VERSIONS.index(version) :]
    return [TProtocol(name) for name in [*(f"/meshsub/{v}" for v in known), FLOODSUB]]


def router(options):
    if options.pubsub == "flood":
        return FloodSub([TProtocol(FLOODSUB)])
    return GossipSub(
        offered(options.pubsub_version),
        degree=6,
        degree_low=4,
        degree_high=12,
        heartbeat_interval=options.pubsub_heartbeat_ms / 1000,
        # Inventions of the library: the second would take 10 messages a second, the third wants addresses to differ.
        adaptive_gossip_enabled=False,
        spam_protection_enabled=False,
        eclipse_protection_enabled=False,
    )


def content_id(message):
    return hashlib.sha256(message.data).digest()


class Gossip:
    COMMANDS = {"sub", "unsub", "pub", "topicPeers", "mesh", "topics"}

    def __init__(self, host, options, nursery, show):
        self.host = host
        self.nursery = nursery
        self.show = show
        self.signs = options.pubsub_sign == "strict"
        # The ids of what was published unsigned.
        self.unsigned = set()
        self.router = router(options)
        if not self.signs and isinstance(self.router, GossipSub):
            # It takes a second message without author and number for a forgery of the first, and forwards it to nobody.
            self.router._check_equivocation = lambda _: True
        id_of = get_peer_and_seqno_msg_id if self.signs else content_id
        self.pubsub = Pubsub(host, self.router, strict_signing=self.signs, msg_id_constructor=id_of)

    async def start(self):
        self.nursery.start_soon(self.serve, self.pubsub)
        if isinstance(self.router, GossipSub):
            self.nursery.start_soon(self.serve, self.router)
        await self.pubsub.wait_until_ready()

    async def serve(self, service):
        async with background_trio_service(service):
            await trio.sleep_forever()

    async def sub(self, request):
        topic = request["topic"]
        if topic in self.pubsub.topic_ids:
            return
        # A verdict of ignoring is not to be had.
        self.pubsub.set_topic_validator(topic, self.accepts, False)
        self.nursery.start_soon(self.follow, topic, await self.pubsub.subscribe(topic))

    def accepts(self, _, message):
        return not message.data.startswith((b"reject:", b"ignore:"))

    async def follow(self, topic, subscription):
        async for message in subscription:
            # Own messages come too.
            own = message.from_id == self.pubsub.my_id.to_bytes() if self.signs else content_id(message) in self.unsigned
            if own:
                continue
            self.show(
                {
                    "event": "message",
                    "node": 0,
                    "topic": topic,
                    "from": str(ID(message.from_id)) if message.from_id else None,
                    "seqno": message.seqno.hex() if message.seqno else None,
                    "data": base64.b64encode(message.data).decode(),
                    "id": self.pubsub.get_message_id(message).hex(),
                }
            )

    async def unsub(self, request):
        if request["topic"] not in self.pubsub.topic_ids:
            raise ValueError(f"not subscribed to {request['topic']}")
        await self.pubsub.unsubscribe(request["topic"])

    async def pub(self, request):
        data = base64.b64decode(request["data"])
        if self.signs:
            await self.pubsub.publish(request["topic"], data)
            return
        # Without signing the library still names the author and numbers the message.
        message = rpc_pb2.Message(data=data, topicIDs=[request["topic"]])
        self.unsigned.add(content_id(message))
        await self.pubsub.push_msg(self.pubsub.my_id, message)

    async def topicPeers(self, request):
        return {"peers": sorted(str(peer) for peer in self.pubsub.peer_topics.get(request["topic"], ()))}

    async def mesh(self, request):
        return {"peers": sorted(str(peer) for peer in self.router.mesh.get(request["topic"], ()))}

    async def topics(self, request):
        return {"topics": sorted(self.pubsub.topic_ids)}
