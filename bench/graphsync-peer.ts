/*
 * The rhiza peer of bench/graphsync.ts, driven by the lines of the lab: `make` fills a memory store with a UnixFS file or a
 * dag-cbor tree, `save` writes it as a CAR, `graphsync` and `bitswap` fetch a whole DAG into an empty memory store.
 */
import { createWriteStream } from 'node:fs'
import { createInterface } from 'node:readline'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { writeCar } from '../src/ipld/car.ts'
import { encodeCbor } from '../src/ipld/cbor.ts'
import { cidOf, codec, parseCid, type CID } from '../src/ipld/cid.ts'
import { codecs } from '../src/ipld/codecs.ts'
import { isLink, isList, isMap, type IpldNode } from '../src/ipld/model.ts'
import { selectors } from '../src/ipld/selectors.ts'
import { traverse } from '../src/ipld/traverse.ts'
import { parseSelector } from '../src/ipld/selector-parse.ts'
import { createNode } from '../src/node.ts'
import { createBitswap } from '../src/protocols/bitswap/bitswap.ts'
import { createGraphsync } from '../src/protocols/graphsync/graphsync.ts'
import type { BlockPair } from '../src/store/blocks.ts'
import { MemoryBlocks } from '../src/store/memory-blocks.ts'
import { addFile } from '../src/unixfs/import.ts'

interface Request {
  id: number
  cmd: string
  what?: 'file' | 'tree'
  size?: number
  cid?: string
  addr?: string
  path?: string
}

const blocks = new MemoryBlocks()
const node = await createNode({ listen: ['/ip4/127.0.0.1/tcp/0'] })
const graphsync = createGraphsync(node, blocks)
const bitswap = createBitswap({ host: node, blocks })
await node.start()
graphsync.start()
bitswap.start()

function* noise(size: number): Generator<Uint8Array> {
  let x = 7
  for (let left = size; left > 0;) {
    const words = new Uint32Array(Math.min(1 << 18, Math.ceil(left / 4)))
    for (let i = 0; i < words.length; i++) {
      x ^= x << 13
      x ^= x >>> 17
      x ^= x << 5
      words[i] = x
    }
    left -= words.byteLength
    yield new Uint8Array(words.buffer)
  }
}

/** Ten links in each node, and a hundred bytes. */
async function tree(count: number): Promise<CID> {
  let level: CID[] = []
  let made = 0
  const put = async (links: CID[]): Promise<CID> => {
    const bytes = encodeCbor({ n: made++, name: `node ${made}`, pad: new Uint8Array(100).fill(made & 255), links })
    const cid = cidOf(codec.dagCbor, bytes)
    await blocks.put(cid, bytes)
    return cid
  }
  const leaves = Math.ceil(count * 0.9)
  for (let i = 0; i < leaves; i++) level.push(await put([]))
  while (level.length > 1) {
    const above: CID[] = []
    for (let i = 0; i < level.length; i += 10) above.push(await put(level.slice(i, i + 10)))
    level = above
  }
  return level[0] as CID
}

function linksOf(value: IpldNode, out: CID[]): void {
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return
  if (isLink(value)) out.push(value)
  else if (isList(value)) for (const item of value) linksOf(item, out)
  else if (isMap(value)) for (const item of Object.values(value)) linksOf(item, out)
}

const commands: Record<string, (request: Request) => Promise<object>> = {
  async make({ what, size = 0 }) {
    const root = what === 'tree' ? await tree(size) : (await addFile(blocks, noise(size))).cid
    return { cid: root.toString(), ...(await blocks.stat()) }
  },
  async save({ cid = '', path = '' }) {
    const root = parseCid(cid)
    const selector = parseSelector(selectors.all())
    async function* pairs(): AsyncGenerator<BlockPair> {
      for await (const step of traverse(root, selector, { load: (c) => blocks.get(c), visitOnce: true }))
        if (step.kind === 'block') yield step
    }
    await pipeline(Readable.from(writeCar([root], pairs())), createWriteStream(path))
    return {}
  },
  async graphsync({ cid = '', addr = '' }) {
    await node.dial(addr)
    const start = performance.now()
    const result = await graphsync.request(addr, parseCid(cid), selectors.all(), { nodes: false }).done
    return { seconds: (performance.now() - start) / 1000, ...result }
  },
  async bitswap({ cid = '', addr = '' }) {
    const { peer } = await node.dial(addr)
    const start = performance.now()
    const session = bitswap.session({ peers: [peer] })
    let wanted = [parseCid(cid)]
    let count = 0
    // Level by level: more cannot be known.
    while (wanted.length > 0) {
      const next: CID[] = []
      for await (const { cid: got, bytes } of session.getMany(wanted)) {
        count++
        await blocks.put(got, bytes)
        if (got.code !== codec.raw) linksOf(codecs.decode(got, bytes), next)
      }
      wanted = next
    }
    return { seconds: (performance.now() - start) / 1000, blocks: count }
  },
}

const print = (value: object): void => void process.stdout.write(`${JSON.stringify(value)}\n`)
const about = { peerId: node.peerId.toString(), addrs: node.addrs().map(String) }
print({ event: 'listening', ...about, nodes: [about] })
createInterface({ input: process.stdin })
  .on('line', (line) => {
    const request = JSON.parse(line) as Request
    const run = commands[request.cmd]
    void (run === undefined ? Promise.reject(new Error(`no command ${request.cmd}`)) : run(request)).then(
      (answer) => print({ id: request.id, ok: true, ...answer }),
      (error: unknown) => print({ id: request.id, ok: false, error: String(error) }),
    )
  })
  .on('close', () => process.exit(0))
