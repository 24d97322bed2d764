import { createKit } from 'rhiza'
import { DAGExchange, type DagResponse } from 'rhiza/dag-exchange'
import { makeAllSelector } from 'rhiza/ipld'

const ana = await createKit({ graphsync: true, listen: ['/ip4/127.0.0.1/tcp/0'] })
const ben = await createKit()
await ana.start()
await ben.start()
const { cid } = await ana.addDirectory([
  { path: 'a.txt', type: 'file', content: new TextEncoder().encode('first\n') },
  { path: 'b.txt', type: 'file', content: new TextEncoder().encode('second\n') },
])

const dagExchange = new DAGExchange(ben.node, ben.blocks)
await dagExchange.start()

function handleResponse(response: DagResponse): void {
  if (response.status !== 'progress') return
  for (const [cid, block] of response.blocks) console.log(`Received block ${cid}, size: ${block.length} bytes`)
}

const [peerId = ''] = ana.node.addrs().map(String)
const request = dagExchange.request({
  peerId,
  rootCid: cid.toString(),
  selector: makeAllSelector(),
  callback: handleResponse,
})
// Later, cancel if needed: await dagExchange.cancelRequest(request.id)
const { status, blocks } = await request.done
console.log(status, blocks.size)

await dagExchange.stop()
await ben.stop()
await ana.stop()
