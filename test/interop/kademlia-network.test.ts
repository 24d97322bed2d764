/* One Kademlia network of 23 nodes of five kinds on loopback: what is added at any is found and fetched from any other. */
import { createHash } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { sha256 } from 'multiformats/hashes/sha2'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { concat } from '../../src/bytes.ts'
import { CID } from '../../src/ipld/cid.ts'
import { createKit, type Kit } from '../../src/kit/kit.ts'
import {
  available,
  buildPeers,
  seededBytes,
  startKubo,
  startPeer,
  type Kubo,
  type Peer,
  type PeerNode,
} from './peers.ts'

await buildPeers()
const have = available()

/** Kubo's network on private addresses; the others have it by the same id. */
const network = 'lan'
const counts = { rhiza: 6, go: 6, js: 5, rust: 5 } as const
const fileBytes = 300_000
const hashOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

interface Found {
  peer: string
  /** Without /p2p; rust-libp2p and Kubo's command line tell none. */
  addrs: string[]
}

/** What the table of tests wants of a node, whatever it is. */
interface Member {
  readonly peerId: string
  /** With /p2p. */
  readonly addr: string
  connect(addr: string): Promise<void>
  /** Peers in its table. */
  tableSize(): Promise<number>
  /** Adds a file and provides it. */
  add(bytes: Uint8Array): Promise<string>
  findProvider(cid: string): Promise<Found | undefined>
  /** The SHA-256 of the file, from the provider, whom rhiza and Kubo look for themselves. Undefined: it speaks no Bitswap, neither gives nor takes. */
  fetch: ((cid: string, from: Found) => Promise<string>) | undefined
}

function rhizaMember(kit: Kit): Member {
  const { node, dht } = kit
  if (dht === undefined) throw new Error('the kit was made without a DHT')
  return {
    peerId: String(node.peerId),
    addr: String(node.addrs()[0]),
    connect: async (addr) => void (await node.dial(addr)),
    tableSize: async () => dht.networks[0]?.table.size ?? 0,
    async add(bytes) {
      const { cid } = await kit.add(bytes)
      await kit.provide(cid)
      return String(cid)
    },
    async findProvider(cid) {
      for await (const { peer, addrs } of dht.findProviders(CID.parse(cid), { count: 1 })) {
        return { peer: String(peer), addrs: addrs.map(String) }
      }
      return undefined
    },
    // By its own search.
    fetch: async (cid) => hashOf(concat(await Array.fromAsync(kit.cat(cid, { timeoutMs: 20_000 })))),
  }
}

function labMember(node: PeerNode): Member {
  const {
    kind,
    peerId,
    addrs: [addr = ''],
  } = node
  const bitswap = kind !== 'rust'
  return {
    peerId,
    addr,
    connect: async (to) => void (await node.call('connect', { addr: to })),
    tableSize: async () => Number((await node.call('tableSize'))['size']),
    async add(bytes) {
      const digest = await sha256.digest(bytes)
      const cid = bitswap
        ? (await node.call('addBytes', { base64: Buffer.from(bytes).toString('base64') }))['cid']
        : String(CID.createV1(0x55, digest))
      await node.call('provide', { cid })
      return String(cid)
    },
    async findProvider(cid) {
      const { providers } = await node.call('findProviders', { cid, count: 1 })
      return (providers as Found[])[0]
    },
    fetch: bitswap
      ? async (cid, from) => {
          const [at] = from.addrs
          const to = at === undefined ? {} : { addr: `${at}/p2p/${from.peer}` }
          return String((await node.call('fetch', { cid, ...to, timeoutMs: 20_000 }))['sha256'])
        }
      : undefined,
  }
}

function kuboMember(kubo: Kubo): Member {
  return {
    peerId: kubo.peerId,
    addr: kubo.addr,
    connect: async (addr) => void (await kubo.run('swarm', 'connect', addr)),
    tableSize: async () => Number(/DHT lan \((\d+) peers\)/.exec(await kubo.run('stats', 'dht', 'lan'))?.[1] ?? 0),
    async add(bytes) {
      const path = join(kubo.repo, 'file')
      await writeFile(path, bytes)
      const cid = (await kubo.run('add', '-Q', '--cid-version=1', path)).trim()
      await kubo.run('routing', 'provide', cid)
      return cid
    },
    async findProvider(cid) {
      const peer = (await kubo.run('routing', 'findprovs', '-n', '1', cid)).trim()
      return peer === '' ? undefined : { peer, addrs: [] }
    },
    // By its own search.
    fetch: async (cid) => hashOf(await kubo.bytes('cat', '--timeout=20s', cid)),
  }
}

const kits: Kit[] = []
const peers: Peer[] = []
let kubo: Kubo | undefined
const members = { rhiza: [], go: [], js: [], rust: [], kubo: [] } as Record<
  'rhiza' | 'go' | 'js' | 'rust' | 'kubo',
  Member[]
>
type Kind = keyof typeof members
const there = { rhiza: true, ...have } as Record<Kind, boolean>
const names = { rhiza: 'rhiza', go: 'go-libp2p', js: 'js-libp2p', rust: 'rust-libp2p', kubo: 'Kubo' } as const
const kinds = Object.keys(names) as Kind[]

beforeAll(async () => {
  for (let i = 0; i < counts.rhiza; i++) {
    const dht = { networks: [network] } as const
    const kit = await createKit({ listen: ['/ip4/127.0.0.1/tcp/0'], dht, provideEveryMs: false })
    await kit.start()
    kits.push(kit)
    members.rhiza.push(rhizaMember(kit))
  }
  for (const kind of ['go', 'js', 'rust'] as const) {
    if (!there[kind]) continue
    const peer = await startPeer(kind, ['--kad', network, '--nodes', String(counts[kind])])
    peers.push(peer)
    members[kind].push(...peer.nodes.map(labMember))
  }
  if (have.kubo) {
    const config = { 'Routing.Type': 'dht', 'Routing.LoopbackAddressesOnLanDHT': true, 'Provide.Enabled': true }
    kubo = await startKubo({ config })
    members.kubo.push(kuboMember(kubo))
  }
  // Of mixed kinds in a row, each joins by the one before it.
  const most = Math.max(...kinds.map((kind) => members[kind].length))
  const row = Array.from({ length: most }, (_, i) => kinds.flatMap((kind) => members[kind].slice(i, i + 1))).flat()
  for (const [i, member] of row.entries()) if (i > 0) await member.connect(row[i - 1]?.addr ?? '')
  const end = Date.now() + 30_000
  for (const member of row) {
    while ((await member.tableSize()) < 5) {
      if (Date.now() > end) throw new Error(`${member.addr} knows ${await member.tableSize()} peers after 30 s`)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }
})
afterAll(async () => {
  await Promise.all(peers.map((peer) => peer.stop()))
  await kubo?.stop()
  for (const kit of kits) await kit.stop()
})

let seed = 0
/** Adds at the first of a kind and finds at the last of the other, which never met it on purpose. */
async function findAndFetch(source: Kind, seeker: Kind): Promise<void> {
  const [from] = members[source]
  const at = members[seeker].at(-1)
  if (from === undefined || at === undefined) throw new Error('no such member')
  seed++
  const bytes = seededBytes(fileBytes, seed)
  const cid = await from.add(bytes)
  // Nobody answers ADD_PROVIDER: js and rust do not know when theirs is read.
  let provider: Found | undefined
  for (let i = 0; i < 50 && provider === undefined; i++) {
    if (i > 0) await new Promise((resolve) => setTimeout(resolve, 100))
    provider = await at.findProvider(cid)
  }
  expect(provider?.peer).toBe(from.peerId)
  if (provider === undefined || at.fetch === undefined || from.fetch === undefined) return
  expect(await at.fetch(cid, provider)).toBe(hashOf(bytes))
}

/** rust-libp2p has no Bitswap: it provides what it could not give. */
const deed = (source: Kind, seeker: Kind): string =>
  source === 'rust' || seeker === 'rust' ? 'finds' : 'finds and fetches'

for (const kind of kinds) {
  describe.skipIf(!there[kind])(`${names[kind]} among 23 nodes of Kademlia`, () => {
    // Of Kubo there is one.
    for (const source of kind === 'rhiza'
      ? (['rhiza'] as const)
      : kinds.filter((one) => one !== kind || one !== 'kubo')) {
      it.skipIf(!there[source])(`${deed(source, kind)} what is added at ${names[source]}`, async () => {
        await findAndFetch(source, kind)
      })
    }
    if (kind !== 'rhiza') it(`adds what rhiza ${deed(kind, 'rhiza')}`, async () => findAndFetch(kind, 'rhiza'))
    it('comes to know most of the others', async () => {
      const want = kind === 'rhiza' ? 20 : 10
      for (const member of members[kind]) {
        for (let i = 0; i < 100 && (await member.tableSize()) < want; i++) {
          await new Promise((resolve) => setTimeout(resolve, 100))
        }
        expect(await member.tableSize()).toBeGreaterThanOrEqual(want)
      }
    })
  })
}
