import { createKit } from 'rhiza'

const ana = await createKit({ listen: ['/ip4/127.0.0.1/tcp/0'] })
const ben = await createKit()
await ana.start()
await ben.start()
const { cid } = await ana.add('hello from rhiza\n')
for await (const bytes of ben.cat(cid, { peers: ana.node.addrs() })) process.stdout.write(bytes)
await ben.stop()
await ana.stop()
