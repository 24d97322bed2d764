import { createKit } from 'rhiza'

const dht = { mode: 'server', prefix: '/example' } as const
const listen = ['/ip4/127.0.0.1/tcp/0']
const entrance = await createKit({ dht, listen })
await entrance.start()
const bootstrap = entrance.node.addrs().map(String)

const ana = await createKit({ dht, listen, bootstrap })
await ana.start()
await ana.reachDht()
const { cid } = await ana.add('found by its CID alone\n')
await ana.provide(cid)

const ben = await createKit({ dht: { ...dht, mode: 'client' }, bootstrap })
await ben.start()
for await (const bytes of ben.cat(cid)) process.stdout.write(bytes)
for (const kit of [ben, ana, entrance]) await kit.stop()
