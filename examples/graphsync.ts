import { createKit } from 'rhiza'
import { selectors } from 'rhiza/ipld'

const ana = await createKit({ graphsync: true, listen: ['/ip4/127.0.0.1/tcp/0'] })
const ben = await createKit({ graphsync: true })
await ana.start()
await ben.start()
const { cid } = await ana.addDirectory([
  { path: 'docs/guide.txt', type: 'file', content: new TextEncoder().encode('the guide\n') },
  { path: 'photos/large.raw', type: 'file', content: new Uint8Array(10_000_000) },
])

const [peer = ''] = ana.node.addrs().map(String)
const request = ben.graphsync?.request(peer, cid, selectors.unixfs('docs/guide.txt'))
for await (const event of request ?? []) {
  // The two directories on the way and the file: nothing of the photos.
  if (event.kind === 'block') console.log(event.index, event.bytes.length, 'bytes')
}
await ana.stop()
// It is in the store now.
for await (const bytes of ben.cat(`${cid}/docs/guide.txt`)) process.stdout.write(bytes)
await ben.stop()
