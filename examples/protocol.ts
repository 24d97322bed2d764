import { createNode } from 'rhiza'

const server = await createNode({ listen: ['/ip4/127.0.0.1/tcp/0'] })
server.handle('/shout/1.0.0', async (stream) => {
  for await (const bytes of stream)
    await stream.write(new TextEncoder().encode(new TextDecoder().decode(bytes).toUpperCase()))
  await stream.closeWrite()
})
await server.start()

const client = await createNode()
await client.start()
const [addr = ''] = server.addrs().map(String)
const stream = await client.newStream(addr, '/shout/1.0.0', { signal: AbortSignal.timeout(5_000) })
await stream.write(new TextEncoder().encode('is anybody there?\n'))
await stream.closeWrite()
for await (const bytes of stream) process.stdout.write(bytes)

await client.stop()
await server.stop()
