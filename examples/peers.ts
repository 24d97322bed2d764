import { createNode, generateKey } from 'rhiza'
import { memoryRecords } from 'rhiza/records'

const server = await createNode({ listen: ['/ip4/127.0.0.1/tcp/0'] })
await server.start()

const records = memoryRecords()
const privateKey = generateKey()
const client = await createNode({ privateKey, records })
await client.start()
const { peer } = await client.dial(server.addrs())
await client.identify(peer)
for (const { certified } of client.book.addrs(peer)) console.log(certified ? 'signed' : 'told')
await client.stop()

const later = await createNode({ privateKey, records })
await later.start()
await later.dial(peer)
later.protect(peer, 'the server')
console.log('found it again', later.isProtected(peer))
console.log('still wanted', later.unprotect(peer, 'the server'))
await later.stop()
await server.stop()
