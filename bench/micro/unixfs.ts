/*
 * UnixFS without a network: add and cat of one file of 1 GB in memory, add of 10,000 small files, listing them sharded.
 * Prints one line of JSON. MB are 10^6 bytes. SIZE_MB changes the file's size.
 */
import { codec, cidOf } from '../../src/ipld/cid.ts'
import { addDirectory, addFile, type AddEntry, cat, ls, type ProfileName } from '../../src/unixfs/unixfs.ts'
import type { BlockPair } from '../../src/store/blocks.ts'

const bytes = Number(process.env['SIZE_MB'] ?? 1000) * 1_000_000
const piece = new Uint8Array(1_048_576).map((_, i) => (i * 2_654_435_761) >>> 24)

/** New memory for every piece, as a file read would give it, each with other bytes. */
function* source(): Generator<Uint8Array> {
  for (let at = 0; at < bytes; at += piece.length) {
    const own = new Uint8Array(piece.subarray(0, Math.min(piece.length, bytes - at)))
    new DataView(own.buffer).setUint32(0, at / piece.length)
    yield own
  }
}

class Memory {
  readonly map = new Map<string, Uint8Array>()

  async putMany(pairs: Iterable<BlockPair> | AsyncIterable<BlockPair>): Promise<void> {
    for await (const { cid, bytes } of pairs) this.map.set(cid.toString(), bytes)
  }

  async get(cid: { toString(): string }): Promise<Uint8Array> {
    const found = this.map.get(cid.toString())
    if (found === undefined) throw new Error(`no block ${cid}`)
    return found
  }
}

async function rate(amount: number, work: () => Promise<unknown>): Promise<number> {
  const start = performance.now()
  await work()
  return Math.round(amount / ((performance.now() - start) / 1000))
}

const result: Record<string, number> = { bytes }
result['sha256_MBps'] = await rate(bytes / 1e6, async () => {
  for (const own of source()) cidOf(codec.raw, own)
})
for (const profile of ['unixfs-v1-2025', 'unixfs-v0-2015'] as const satisfies ProfileName[]) {
  const memory = new Memory()
  const add = async () => (await addFile(memory, source(), { profile })).cid
  let cid = cidOf(codec.raw, piece)
  result[`add_${profile}_MBps`] = await rate(bytes / 1e6, async () => void (cid = await add()))
  result[`cat_${profile}_MBps`] = await rate(bytes / 1e6, async () => {
    let read = 0
    for await (const { length } of cat(memory, cid)) read += length
    if (read !== bytes) throw new Error(`read ${read} of ${bytes} bytes`)
  })
}
const files = 10_000
const memory = new Memory()
const entries = Array.from({ length: files }, (_, i): AddEntry => {
  return { path: `file-${i}.txt`, type: 'file', content: new TextEncoder().encode(`content of file ${i}`) }
})
let root = cidOf(codec.raw, piece)
result['addSmall_perS'] = await rate(files, async () => void (root = (await addDirectory(memory, entries)).cid))
result['lsSharded_perS'] = await rate(files, () => Array.fromAsync(ls(memory, root)))
result['maxRss_MB'] = Math.round(process.resourceUsage().maxRSS / 1000)
process.stdout.write(`${JSON.stringify({ bench: 'unixfs', node: process.version, ...result })}\n`)
