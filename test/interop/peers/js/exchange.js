import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { withBitswap } from '@helia/bitswap'
import { withLibp2pLight } from '@helia/libp2p'
import { unixfs } from '@helia/unixfs'
import { multiaddr } from '@multiformats/multiaddr'
import { MemoryBlockstore } from 'blockstore-core'
import { createHeliaLight } from 'helia'
import { CID } from 'multiformats/cid'

/** xorshift32 as little-endian words: the other lab peers make the same bytes. */
function* seeded(size, seed) {
  let x = seed >>> 0 || 1
  for (let left = size; left > 0;) {
    const words = new Uint32Array(Math.min(1 << 18, Math.ceil(left / 4)))
    for (let i = 0; i < words.length; i++) {
      x ^= x << 13
      x ^= x >>> 17
      x ^= x << 5
      words[i] = x
    }
    const bytes = new Uint8Array(words.buffer, 0, Math.min(words.byteLength, left))
    left -= bytes.length
    yield bytes
  }
}

function source({ base64, path, size, seed = 0 }) {
  if (base64 !== undefined) return [Buffer.from(base64, 'base64')]
  if (path !== undefined) return createReadStream(path, { highWaterMark: 1 << 20 })
  if (size !== undefined) return seeded(size, seed)
  throw new Error('base64, path or size is needed')
}

// Helia's own defaults would win over the profile, so they are taken back.
const plain = { cidVersion: undefined, rawLeaves: undefined, layout: undefined, chunker: undefined }
const profiles = {
  'v1-2025': { profile: 'unixfs-v1-2025' },
  'v0-2015': { ...plain, profile: 'unixfs-v0-2015' },
}

export async function startHelia(libp2p) {
  const blocks = new MemoryBlockstore()
  const helia = withBitswap(withLibp2pLight(createHeliaLight({ blockstore: blocks }), libp2p))
  await helia.start()
  return { helia, node: helia.libp2p, commands: exchangeCommands(helia.libp2p, helia, blocks) }
}

function exchangeCommands(node, helia, blocks) {
  const fs = unixfs(helia)

  const connectTo = async ({ addr, signal }) => {
    if (addr !== undefined) await node.dial(multiaddr(addr), { signal })
  }
  const block = async (cid, signal) => {
    const chunks = []
    for await (const chunk of helia.blockstore.get(cid, { signal })) chunks.push(chunk)
    return Buffer.concat(chunks)
  }

  return {
    addBytes: async ({ profile = 'v1-2025', signal, ...from }) => {
      if (profiles[profile] === undefined) throw new Error(`no such profile: ${profile}`)
      let size = 0
      const start = performance.now()
      const counted = async function* () {
        for await (const chunk of source(from)) {
          size += chunk.length
          yield chunk
        }
      }
      const cid = await fs.addByteStream(counted(), { ...profiles[profile], signal })
      return { cid: String(cid), size, seconds: (performance.now() - start) / 1000 }
    },
    fetch: async (params) => {
      await connectTo(params)
      const hash = createHash('sha256')
      let size = 0
      const start = performance.now()
      for await (const chunk of fs.cat(CID.parse(params.cid), { signal: params.signal })) {
        hash.update(chunk)
        size += chunk.length
      }
      return { size, sha256: hash.digest('hex'), seconds: (performance.now() - start) / 1000 }
    },
    fetchBlock: async (params) => {
      await connectTo(params)
      const start = performance.now()
      const bytes = await block(CID.parse(params.cid), params.signal)
      const seconds = (performance.now() - start) / 1000
      return { bytes: bytes.toString('base64'), size: bytes.length, seconds }
    },
    want: async (params) => {
      await connectTo(params)
      // A little before the command's own end, so that what came is told.
      const signal = AbortSignal.timeout((params.timeoutMs ?? 60_000) - 50)
      const got = []
      const ask = async (cid) => {
        await block(CID.parse(cid), signal)
        got.push(cid)
      }
      await Promise.allSettled(params.cids.map(ask))
      return { got }
    },
    has: async ({ cid }) => ({ has: await blocks.has(CID.parse(cid)) }),
  }
}
