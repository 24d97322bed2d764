import { createNode } from 'rhiza'
import { jsonHandler, jsonRequest } from 'rhiza/framed'

const server = await createNode({ listen: ['/ip4/127.0.0.1/tcp/0'] })
const greet = jsonHandler(({ name }: { name: string }, { protocol }) => `hello ${name}, by ${protocol}`)
server.handle('/greet', greet, { version: '1.10.0', accepts: '^1.0.0', capabilities: ['formal'] })
server.handle('/greet', greet, { version: '1.9.0' })
server.handle('/greet', greet, { version: '2.0.0' })
await server.start()

const client = await createNode()
await client.start()
const [addr = ''] = server.addrs().map(String)
const chosen = client.newStream(addr, { name: '/greet', range: '^1.1.0', requires: ['formal'] })
console.log(await jsonRequest(chosen, { name: 'Ana' }))
const older = await client.newStream(addr, '/greet/1.2.0')
console.log(await jsonRequest(older, { name: 'Ben' }))
const fallback = await client.newStream(addr, ['/greet/3.0.0', '/greet/2.0.0'])
console.log(fallback.protocol, 'instead of', fallback.tried?.map(({ what }) => what).join())

await client.stop()
await server.stop()
