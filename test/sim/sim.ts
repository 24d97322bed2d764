/*
 * A network of real nodes in one process and in virtual time: createNode() as everybody gets it, over the memory
 * transport, with latency by distance, lost writes, cut links, partitions, crashes and churn. One seed, one history.
 */
import { createHash } from 'node:crypto'
import { concat } from '../../src/bytes.ts'
import { FakeRandom, type Random } from '../../src/env.ts'
import { multiaddr, type Multiaddr } from '../../src/multiaddr.ts'
import { createNode, type Node, type NodeOptions } from '../../src/node.ts'
import { decodePrivateKey, type PrivateKey } from '../../src/peer/keys.ts'
import { createNoise } from '../../src/security/noise/noise.ts'
import { MemoryNetwork, Road, memory } from '../../src/transport/memory.ts'
import { simCrypto } from './crypto.ts'
import { plaintext } from './plaintext.ts'
import { VirtualTime } from './time.ts'

export interface SimOptions {
  /** Decides everything: identities, places, losses, jitter. */
  seed: number
  /** Nodes at the start; default 0. */
  nodes?: number
  /** `plaintext` (the default) proves nothing and costs nothing; `noise` is the real one. */
  security?: 'noise' | 'plaintext'
  /** One way, between the nearest and between the farthest. Default 5 to 100 ms. */
  latencyMs?: readonly [number, number]
  /** Chance that a write is lost and comes 200 ms later. Default 0. */
  lossRate?: number
  /** What each node is made with besides. */
  node?: (index: number) => NodeOptions
}

export interface SimNode {
  readonly index: number
  readonly node: Node
  /** With /p2p. */
  readonly addr: Multiaddr
  readonly random: Random
}

interface Place {
  x: number
  y: number
}

/** The identity that a seed and a number give. */
export function seededKey(seed: number, index: number): PrivateKey {
  const secret = createHash('sha256').update(`${seed}/${index}`).digest()
  const { publicKey } = simCrypto.ed25519From(new Uint8Array(secret))
  // PrivateKey { type: Ed25519, data: seed and public key }
  return decodePrivateKey(concat([Uint8Array.of(0x08, 1, 0x12, 64), secret, publicKey]), simCrypto)
}

export class Sim {
  readonly time = new VirtualTime()
  /** In the order they were added; those that crashed are gone from here. */
  readonly nodes: SimNode[] = []
  readonly #options: Required<SimOptions>
  readonly #network: MemoryNetwork
  readonly #random: FakeRandom
  readonly #places: Place[] = []
  readonly #roads = new Map<string, Road>()
  readonly #history = createHash('sha256')
  /** For tests that want to see: every trace event of every node, as `time node event`. */
  onEvent: ((line: string) => void) | undefined
  #side: ((index: number) => number) | undefined

  private constructor(options: SimOptions) {
    this.#options = {
      nodes: 0,
      security: 'plaintext',
      latencyMs: [5, 100],
      lossRate: 0,
      node: () => ({}),
      ...options,
    }
    this.#random = new FakeRandom(options.seed)
    const env = this.time.env(options.seed)
    this.#network = new MemoryNetwork({ env, lossRate: this.#options.lossRate }, (from, to) => {
      const [a, b] = [Number(from), Number(to) - 1]
      return { latencyMs: this.latencyMs(a, b), road: this.road(a, b) }
    })
  }

  static async create(options: SimOptions): Promise<Sim> {
    const sim = new Sim(options)
    for (let i = 0; i < sim.#options.nodes; i++) await sim.add()
    return sim
  }

  /** One more node, started. */
  async add(more: NodeOptions = {}): Promise<SimNode> {
    const { seed, security, node: optionsOf } = this.#options
    const index = this.#places.length
    this.#places.push({ x: this.#random.unit(), y: this.#random.unit() })
    const env = this.time.env(seed * 65_537 + index, (what) => this.#note(index, what))
    const privateKey = seededKey(seed, index)
    const node = await createNode({
      privateKey,
      env,
      crypto: simCrypto,
      transports: [memory(this.#network, String(index))],
      security: [security === 'noise' ? createNoise({ privateKey, env, crypto: simCrypto }) : plaintext(privateKey)],
      listen: [`/memory/${index + 1}`],
      ...optionsOf(index),
      ...more,
    })
    await node.start()
    const addr = multiaddr(`/memory/${index + 1}`).withPeer(node.peerId)
    const one = { index, node, addr, random: env.random }
    this.nodes.push(one)
    return one
  }

  /** The node whose number it is: where it listens on `/memory/index+1`. Throws when it crashed. */
  at(index: number): SimNode {
    const one = this.nodes.find((n) => n.index === index)
    if (one === undefined) throw new RangeError(`there is no node ${index}`)
    return one
  }

  /** One way, by distance. */
  latencyMs(a: number, b: number): number {
    const [near, far] = this.#options.latencyMs
    const [from, to] = [this.#places[a], this.#places[b]]
    if (from === undefined || to === undefined) return far
    return near + ((far - near) * Math.hypot(from.x - to.x, from.y - to.y)) / Math.SQRT2
  }

  /** The way between two nodes, for both directions and all their connections. */
  road(a: number, b: number): Road {
    const key = a < b ? `${a}-${b}` : `${b}-${a}`
    let road = this.#roads.get(key)
    if (road === undefined) {
      this.#roads.set(key, (road = new Road()))
      if (this.#side !== undefined) road.open = this.#side(a) === this.#side(b)
    }
    return road
  }

  /** Nodes with different numbers neither reach nor hear each other, until `heal`. */
  partition(side: (index: number) => number): void {
    this.#side = side
    for (const [key, road] of this.#roads) {
      const [a = 0, b = 0] = key.split('-').map(Number)
      road.open = side(a) === side(b)
    }
  }

  heal(): void {
    this.#side = undefined
    for (const road of this.#roads.values()) road.open = true
  }

  /** A node goes without a word: its peers notice when nothing comes any more. */
  async crash(index: number): Promise<void> {
    const { node } = this.at(index)
    for (let other = 0; other < this.#places.length; other++) if (other !== index) this.road(index, other).open = false
    this.nodes.splice(
      this.nodes.findIndex((n) => n.index === index),
      1,
    )
    await this.time.until(node.stop())
  }

  /** Ends all nodes. Afterwards no timer of theirs waits. */
  async stop(): Promise<void> {
    this.heal()
    await this.time.until(Promise.all(this.nodes.splice(0).map(({ node }) => node.stop())))
  }

  /** A digest of everything that was traced, with its times: equal for equal seeds. */
  history(): string {
    return this.#history.copy().digest('hex')
  }

  #note(index: number, what: string): void {
    const line = `${this.time.now()} ${index} ${what}`
    this.#history.update(`${line}\n`)
    this.onEvent?.(line)
  }
}
