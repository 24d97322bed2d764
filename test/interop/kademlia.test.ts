/* Kademlia with real peers, one by one: every request both ways, and what they are for. Many at once: kademlia-network. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { sha256 } from 'multiformats/hashes/sha2'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { concat } from '../../src/bytes.ts'
import { createDht, recordKey, type Dht, type DhtOptions, type PeerInfo } from '../../src/dht/dht.ts'
import type { Kad } from '../../src/dht/kad.ts'
import type { Message } from '../../src/dht/wire.ts'
import { CID } from '../../src/ipld/cid.ts'
import { createNames, ipnsValidator, type Names } from '../../src/ipns/ipns.ts'
import { createRecord, nameOf } from '../../src/ipns/record.ts'
import { createKit, type Kit } from '../../src/kit/kit.ts'
import { parseMultiaddr, type Multiaddr } from '../../src/multiaddr.ts'
import { PeerId } from '../../src/peer/id.ts'
import { generateKey } from '../../src/peer/keys.ts'
import { memoryRecords } from '../../src/store/records.ts'
import { somePeer } from '../dht/peers.ts'
import { available, buildPeers, startKubo, startPeer, type Kubo, type Peer, type PeerNode } from './peers.ts'

await buildPeers()
const have = available()

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')
const text = (value: string): Uint8Array => new TextEncoder().encode(value)

async function cidOf(content: string): Promise<CID> {
  return CID.createV1(0x55, await sha256.digest(text(content)))
}

/** A public key under its peer id: RSA, as js-libp2p reads no ECDSA keys, and others are in the id itself. */
async function publicKeyRecord(): Promise<{ key: Uint8Array; value: Uint8Array }> {
  const { publicKey } = await generateKey('RSA')
  return { key: recordKey('pk', PeerId.fromPublicKey(publicKey.encoded).bytes), value: publicKey.encoded }
}

async function nameRecord(path: string): Promise<{ key: Uint8Array; value: Uint8Array }> {
  const key = generateKey()
  const value = await createRecord(key, { value: path, sequence: 1n, now: Date.now() })
  return { key: recordKey('ipns', nameOf(key.publicKey).bytes), value }
}

async function until(what: string, done: () => boolean | Promise<boolean>): Promise<void> {
  const end = Date.now() + 15_000
  while (!(await done())) {
    if (Date.now() > end) throw new Error(`not within 15 s: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

interface Here {
  kit: Kit
  dht: Dht
  kad: Kad
  names: Names
  addr: string
}

async function here(options: DhtOptions): Promise<Here> {
  const kit = await createKit({ listen: ['/ip4/127.0.0.1/tcp/0'] })
  const { node } = kit
  await kit.start()
  const dht = createDht(node, { ...options, validators: { ipns: ipnsValidator(node.env) } })
  await dht.start()
  const names = createNames({ routing: dht, records: memoryRecords({ env: node.env }), env: node.env })
  return { kit, dht, kad: dht.networks[0] as Kad, names, addr: String(node.addrs()[0]) }
}

async function stop(...nodes: readonly (Here | undefined)[]): Promise<void> {
  for (const one of nodes) {
    await one?.names.stop()
    await one?.dht.stop()
    await one?.kit.stop()
  }
}

const list = <T>(answer: Record<string, unknown>, name: string): T[] => answer[name] as T[]
const addrsOf = (of: readonly Multiaddr[]): string[] => of.map(String)
const bare = (addr: string): string => addr.replace(/\/p2p\/.*/, '')

/** Nobody answers ADD_PROVIDER: whoever has sent it (js, rust) does not know when it is read. */
async function providersOf(cid: CID, dht: Dht): Promise<PeerInfo[]> {
  let found: PeerInfo[] = []
  await until('a provider is found', async () => {
    found = await Array.fromAsync(dht.findProviders(cid))
    return found.length > 0
  })
  return found
}

const to = (node: PeerNode): PeerInfo => ({
  peer: PeerId.parse(node.peerId),
  addrs: node.addrs.map((addr) => parseMultiaddr(addr).withoutPeer()),
})

/** Whether a lookup of its DHT ends at this peer. */
async function knows(node: PeerNode, id: PeerId): Promise<boolean> {
  return list<string>(await node.call('closestPeers', { key: base64(id.bytes) }), 'peers').includes(id.toString())
}

async function foundAt(node: PeerNode, id: PeerId): Promise<string[]> {
  return list<string>(await node.call('findPeer', { peer: String(id) }), 'addrs').map(bare)
}

describe.each(['go', 'js', 'rust'] as const)('%s-libp2p, Kademlia one to one', (kind) => {
  const flags = ['--kad', '/lab', ...(kind === 'rust' ? [] : ['--bitswap', 'none'])]
  let peer: Peer
  /** Two of theirs that are connected to us alone. */
  let near: PeerNode
  let far: PeerNode
  let us: Here
  /** Serves no DHT, and we alone are connected to it. */
  let client: Here

  const ask = (request: Partial<Message> & Pick<Message, 'type' | 'key'>): Promise<Message> =>
    us.kad.network.ask(to(near), { closerPeers: [], providerPeers: [], ...request })
  beforeAll(async () => {
    if (!have[kind]) return
    peer = await startPeer(kind, [...flags, '--nodes', '2'])
    ;[near, far] = peer.nodes as [PeerNode, PeerNode]
    us = await here({ prefix: '/lab', mode: 'server' })
    client = await here({ prefix: '/lab', mode: 'client' })
    await near.call('connect', { addr: us.addr })
    await far.call('connect', { addr: us.addr })
    await client.kit.node.dial(us.addr)
    await until('both in our table', () => us.kad.table.size === 2 && client.kad.table.size > 0)
    await until('we in theirs', async () => {
      const sizes = await Promise.all([near, far].map(async (node) => Number((await node.call('tableSize'))['size'])))
      return sizes.every((size) => size > 0)
    })
  })
  afterAll(async () => {
    await stop(client, us)
    await peer?.stop()
  })

  it.skipIf(!have[kind])('answers our FIND_NODE, GET_PROVIDERS, ADD_PROVIDER, PUT_VALUE and GET_VALUE', async () => {
    const target = PeerId.parse(far.peerId)
    await until('near knows far', () => knows(near, target))
    await until('near tells of far', async () => {
      const { closerPeers } = await ask({ type: 'FIND_NODE', key: target.bytes })
      return closerPeers.some(({ id, addrs }) => base64(id) === base64(target.bytes) && addrs.length > 0)
    })

    const key = (await cidOf(`told to ${kind}`)).multihash.bytes
    expect((await ask({ type: 'GET_PROVIDERS', key })).providerPeers).toEqual([])
    const addrs = us.kad.ownAddrs().map((addr) => addr.bytes)
    const providerPeers = [{ id: us.kit.node.peerId.bytes, addrs, connection: 1 }]
    await us.kad.network.tell(to(near), { type: 'ADD_PROVIDER', key, closerPeers: [], providerPeers })
    // Not the one that it is: rust-libp2p tells nobody of itself.
    const request: Message = { type: 'GET_PROVIDERS', key, closerPeers: [], providerPeers: [] }
    await until('it tells another of us', async () => {
      const [found] = (await client.kad.network.ask(to(near), request)).providerPeers
      return found !== undefined && base64(found.id) === base64(us.kit.node.peerId.bytes) && found.addrs.length > 0
    })

    const record = await publicKeyRecord()
    expect((await ask({ type: 'GET_VALUE', key: record.key })).record).toBeUndefined()
    const echoed = await ask({ type: 'PUT_VALUE', key: record.key, record })
    expect(echoed.record).toMatchObject(record)
    expect((await ask({ type: 'GET_VALUE', key: record.key })).record).toMatchObject(record)
  })

  it.skipIf(!have[kind])('is answered: what we alone know or hold it finds, what it tells us we keep', async () => {
    const held = await cidOf(`held for ${kind}`)
    us.kad.providers.add(held.multihash.bytes, client.kit.node.peerId, client.kad.ownAddrs())
    const found = await near.call('findProviders', { cid: String(held), count: 1 })
    expect(list<{ peer: string }>(found, 'providers').map((one) => one.peer)).toEqual([String(client.kit.node.peerId)])

    const own = await cidOf(`of ${kind}`)
    await near.call('provide', { cid: String(own) })
    await until('we have its provider record', () => us.kad.providers.of(own.multihash.bytes).length === 1)
    const [theirs] = us.kad.providers.of(own.multihash.bytes)
    expect(String(theirs?.peer)).toBe(near.peerId)
    expect(addrsOf(theirs?.addrs ?? [])).toEqual(addrsOf(to(near).addrs))

    const ours = await publicKeyRecord()
    await us.kad.values.put(ours.key, ours.value)
    expect(await near.call('getValue', { key: base64(ours.key) })).toMatchObject({ value: base64(ours.value) })
    const put = await publicKeyRecord()
    await near.call('putValue', { key: base64(put.key), value: base64(put.value) })
    await until('we have its value', async () => (await us.kad.values.get(put.key)) !== undefined)
    expect((await us.kad.values.get(put.key))?.value).toEqual(put.value)
  })

  it.skipIf(!have[kind])('finds what we provide, and we what it provides', async () => {
    const mine = await cidOf(`rhiza to ${kind}`)
    expect(await client.dht.provide(mine)).toBeGreaterThan(0)
    const answer = await far.call('findProviders', { cid: String(mine), count: 1 })
    const [provider] = list<{ peer: string; addrs: string[] }>(answer, 'providers')
    expect(provider?.peer).toBe(String(client.kit.node.peerId))
    // rust-libp2p keeps the addresses of providers to itself.
    if (kind !== 'rust') expect(provider?.addrs).toEqual(addrsOf(client.kad.ownAddrs()))

    const theirs = await cidOf(`${kind} to rhiza`)
    await far.call('provide', { cid: String(theirs) })
    const found = await providersOf(theirs, client.dht)
    expect(found.map((one) => String(one.peer))).toEqual([far.peerId])
    expect(addrsOf(found[0]?.addrs ?? [])).toEqual(addrsOf(to(far).addrs))
  })

  it.skipIf(!have[kind])('is found by its peer id, and finds us and who serves no DHT', async () => {
    // By others, and where it is connected to us from a port on which it does not listen.
    for (const { dht } of [client, us]) {
      const found = await dht.findPeer(PeerId.parse(far.peerId))
      expect(addrsOf(found.addrs)).toEqual(addrsOf(to(far).addrs))
    }
    expect(await foundAt(near, us.kit.node.peerId)).toEqual(addrsOf(us.kad.ownAddrs()))
    // rust-libp2p finds those alone that answer it.
    if (kind !== 'rust') expect(await foundAt(near, client.kit.node.peerId)).toEqual(addrsOf(client.kad.ownAddrs()))
  })

  it.skipIf(!have[kind])('gets the records that we put, and we those that it puts', async () => {
    for (const record of [publicKeyRecord, () => nameRecord('/ipfs/bafkqaaa')]) {
      const ours = await record()
      expect(await us.dht.put(ours.key, ours.value)).toBe(2)
      expect(await far.call('getValue', { key: base64(ours.key) })).toMatchObject({ value: base64(ours.value) })
      const theirs = await record()
      await near.call('putValue', { key: base64(theirs.key), value: base64(theirs.value) })
      expect(await client.dht.get(theirs.key)).toEqual(theirs.value)
    }
  })

  it.skipIf(!have[kind])('takes our answer about a key that a thousand provide', async () => {
    const cid = await cidOf(`popular with ${kind}`)
    const addrs = [1, 2, 3].map((port) => parseMultiaddr(`/ip4/127.0.0.1/tcp/${port}`))
    for (let i = 0; i < 1_000; i++) us.kad.providers.add(cid.multihash.bytes, somePeer(i, 11), addrs)
    const { providers } = await near.call('findProviders', { cid: String(cid) })
    // js-libp2p ends at so many.
    expect((providers as unknown[]).length).toBeGreaterThanOrEqual(kind === 'js' ? 20 : 100)
  })

  it.skipIf(!have[kind])(
    'is no worse in our eyes for telling of a peer that announced hundreds of addresses',
    async () => {
      const cid = await cidOf(`verbose to ${kind}`)
      const key = cid.multihash.bytes
      const addrs = Array.from({ length: 300 }, (_, i) => parseMultiaddr(`/ip4/127.0.0.1/tcp/${i + 1}`).bytes)
      const { peerId } = client.kit.node
      const providerPeers = [{ id: peerId.bytes, addrs, connection: 1 }]
      await client.kad.network.tell(to(near), { type: 'ADD_PROVIDER', key, closerPeers: [], providerPeers })
      let told = 0
      await until('it tells of it', async () => {
        told = (await ask({ type: 'GET_PROVIDERS', key })).providerPeers[0]?.addrs.length ?? 0
        return told > 0
      })
      // go-libp2p keeps 64, and the one that it is connected to; the others keep all.
      expect(told).toBeGreaterThanOrEqual(65)
      const found = await Array.fromAsync(us.dht.findProviders(cid))
      expect(found.map((one) => one.peer.toString())).toEqual([peerId.toString()])
      expect(us.kad.table.has(PeerId.parse(near.peerId))).toBe(true)
    },
  )

  it.skipIf(!have[kind])('keeps our clients out of its table, and its clients find and provide', async () => {
    const { peerId } = client.kit.node
    await client.kit.node.dial(near.addrs[0] ?? '')
    expect(await knows(near, us.kit.node.peerId)).toBe(true)
    expect(await knows(near, peerId)).toBe(false)
    await using other = await startPeer(kind, [...flags, '--kad-mode', 'client'])
    await other.call('connect', { addr: us.addr })
    await until('it knows us', async () => Number((await other.call('tableSize'))['size']) > 0)
    const cid = await cidOf(`a client of ${kind}`)
    await other.call('provide', { cid: String(cid) })
    const [found] = await providersOf(cid, client.dht)
    expect(String(found?.peer)).toBe(other.peerId)
    expect(us.kad.table.has(PeerId.parse(other.peerId))).toBe(false)
  })
})

describe.skipIf(!have.kubo)('Kubo, Kademlia in the LAN', () => {
  let kubo: Kubo
  /** Connected to both. */
  let between: Here
  let us: Here
  beforeAll(async () => {
    kubo = await startKubo({
      config: { 'Routing.Type': 'dht', 'Routing.LoopbackAddressesOnLanDHT': true, 'Provide.Enabled': true },
    })
    between = await here({ networks: ['lan'] })
    us = await here({ networks: ['lan'], mode: 'client' })
    await kubo.run('swarm', 'connect', between.addr)
    await us.kit.node.dial(between.addr)
    await until('it is in both tables', async () => {
      const inKubo = (await kubo.run('stats', 'dht', 'lan')).includes('DHT lan (1 peers)')
      return inKubo && between.kad.table.size === 1 && us.kad.table.size > 0
    })
  })
  afterAll(async () => {
    await stop(us, between)
    await kubo.stop()
  })

  /** Ends what lookups have connected: the two must find each other. */
  async function strangers(): Promise<void> {
    const { node } = us.kit
    await node.hangUp(PeerId.parse(kubo.peerId))
    await until('Kubo has noticed', async () => !(await kubo.run('swarm', 'peers')).includes(String(node.peerId)))
  }

  async function addedToKubo(content: string): Promise<string> {
    const path = join(kubo.repo, 'file')
    await writeFile(path, content)
    return (await kubo.run('add', '-Q', '--cid-version=1', path)).trim()
  }

  it('finds by findprovs what rhiza provides, and fetches it', async () => {
    const { cid } = await us.kit.add('found by Kubo')
    await us.dht.provide(cid)
    await strangers()
    expect((await kubo.run('routing', 'findprovs', '-n', '1', String(cid))).trim()).toBe(String(us.kit.node.peerId))
    expect(await kubo.run('cat', '--timeout=20s', String(cid))).toBe('found by Kubo')
  })

  it('provides by routing provide what rhiza finds and fetches', async () => {
    const cid = await addedToKubo('found by rhiza')
    await kubo.run('routing', 'provide', cid)
    const [found] = await Array.fromAsync(us.dht.findProviders(CID.parse(cid), { count: 1 }))
    expect(String(found?.peer)).toBe(kubo.peerId)
    await strangers()
    const peers = found?.addrs.map((addr) => addr.withPeer(found.peer)) ?? []
    expect(Buffer.from(concat(await Array.fromAsync(us.kit.cat(cid, { peers })))).toString()).toBe('found by rhiza')
  })

  it('is found by findPeer, and finds rhiza by findpeer', async () => {
    const { addrs } = await us.dht.findPeer(PeerId.parse(kubo.peerId))
    expect(addrsOf(addrs)).toContain(bare(kubo.addr))
    const found = await kubo.run('routing', 'findpeer', String(us.kit.node.peerId))
    expect(found.trim()).toBe(bare(us.addr))
  })

  it('publishes a name that rhiza resolves, again when it moves, and resolves a name that rhiza publishes', async () => {
    for (const content of ['first', 'second']) {
      const cid = await addedToKubo(content)
      await kubo.run('name', 'publish', `/ipfs/${cid}`)
      expect((await us.names.resolve(kubo.peerId, { noCache: true })).path).toBe(`/ipfs/${cid}`)
    }
    const key = generateKey()
    for (const content of ['first', 'second']) {
      const { cid } = await us.kit.add(`${content} of rhiza`)
      const { name } = await us.names.publish(key, `/ipfs/${cid}`)
      expect((await kubo.run('name', 'resolve', '--nocache', String(name))).trim()).toBe(`/ipfs/${cid}`)
    }
  })
})
