/*
 * What the commands share that find peers themselves: their options, and a kit with a DHT client for one command. Where
 * nothing is said of bootstrap, peers that this repo's serve has met are asked.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { deadline } from '../deadline.ts'
import type { Dht, DhtMode, DhtOptions, QueryEvent } from '../dht/dht.ts'
import { systemEnv } from '../env.ts'
import { errorCode } from '../errors.ts'
import { createKit, type Kit, type KitOptions } from '../kit/kit.ts'
import { decodeSavedPeer } from '../peer/book-records.ts'
import { openRepo, type Repo } from '../store/repo.ts'
import type { RecordStore } from '../store/records.ts'
import {
  UsageError,
  listOf,
  multiaddrOf,
  networkOptions,
  stopTimeoutMs,
  type Context,
  type OptionSpecs,
} from './args.ts'

export const findingOptions = {
  bootstrap: {
    type: 'string',
    multiple: true,
    value: 'ADDR',
    help: 'enter the network at this peer; repeatable; "default": the public IPFS network',
  },
  mdns: { type: 'boolean', help: 'find peers on the same network by multicast DNS' },
  'dht-prefix': { type: 'string', value: '/NAME', help: 'a DHT of your own: /NAME/kad/1.0.0' },
  'dht-network': { type: 'string', value: 'NET', help: 'wan, lan or both (default) of the DHT of IPFS' },
} as const satisfies OptionSpecs

export const lookupOptions = {
  ...findingOptions,
  timeout: { ...networkOptions.timeout, help: 'give up after so long: 500ms, 30s, 5m (default 60s)' },
} as const satisfies OptionSpecs

function networksOf(given: unknown): Pick<DhtOptions, 'networks'> {
  if (given === undefined || given === 'both') return {}
  if (given === 'wan' || given === 'lan') return { networks: [given] }
  throw new UsageError(`--dht-network ${JSON.stringify(given)}: want wan, lan or both`)
}

/** What the options say of the DHT; throws UsageError. */
export function dhtOf({ options }: Pick<Context, 'options'>, mode: DhtMode): DhtOptions {
  const prefix = options['dht-prefix']
  if (typeof prefix === 'string' && !/^(\/[^\s/]+)+$/.test(prefix))
    throw new UsageError(`--dht-prefix ${JSON.stringify(prefix)}: want /name`)
  return { mode, ...networksOf(options['dht-network']), ...(typeof prefix === 'string' && { prefix }) }
}

/** What the options say of how to find peers; throws UsageError. */
export function findingOf({ options }: Pick<Context, 'options'>): Pick<KitOptions, 'bootstrap' | 'mdns'> {
  const bootstrap = listOf(options, 'bootstrap').map((a) => (a === 'default' ? a : multiaddrOf('--bootstrap', a)))
  return { bootstrap, mdns: options['mdns'] === true }
}

/** Undefined where this runtime has no store for them, or where we may not write: then nothing is remembered. */
export async function recordsOf(repo: Repo): Promise<RecordStore | undefined> {
  try {
    return await repo.records()
  } catch (error) {
    if (errorCode(error) !== 'unsupported' && errorCode(error) !== 'not-permitted') throw error
    return undefined
  }
}

/** Peers that are tried where none is named. */
const maxRemembered = 16

/** Where peers are that the repo's serve met, and itself, the latest first. Nothing is made for it. */
async function rememberedPeers(repo: Repo): Promise<string[]> {
  if (!existsSync(join(repo.path, 'records.sqlite'))) return []
  const records = await recordsOf(repo)
  const found: { addrs: string[]; until: number }[] = []
  for await (const { key, value } of records?.entries('/peers/') ?? []) {
    const [, , peer = '', what] = key.split('/')
    if (what !== 'addrs') continue
    const { addrs, met } = decodeSavedPeer(value)
    if (!met || addrs.length === 0) continue
    const until = Math.max(...addrs.map(({ expiresAt }) => expiresAt))
    found.push({ addrs: addrs.slice(0, 8).map(({ addr }) => `${addr}/p2p/${peer}`), until })
  }
  const best = found.toSorted((a, b) => (a.until === b.until ? 0 : b.until - a.until))
  return best.slice(0, maxRemembered).flatMap(({ addrs }) => addrs)
}

/** How a command that reads finds peers: as the options say, else by whom the repo remembers. */
export async function readingNetwork(context: Context, repo: Repo): Promise<Partial<KitOptions>> {
  const given = findingOf(context)
  const dht = dhtOf(context, 'client')
  if (given.mdns === true || (given.bootstrap?.length ?? 0) > 0) return { ...given, dht }
  if (context.peers.length > 0) return {}
  const bootstrap = await rememberedPeers(repo)
  return bootstrap.length > 0 ? { bootstrap, dht } : {}
}

export interface Lookup {
  kit: Kit
  dht: Dht
  repo: Repo
  /** Ctrl-C, and the deadline of --timeout. */
  signal: AbortSignal
}

/** Runs `work` with a DHT client that has found its first peer, with an id of its own. */
export async function lookingUp(context: Context, work: (parts: Lookup) => Promise<void>): Promise<void> {
  const finding = findingOf(context)
  const dhtOptions = dhtOf(context, 'client')
  const timeoutMs = context.options['timeout'] === undefined ? 60_000 : context.timeoutMs
  const bound = deadline({ env: systemEnv(), timeoutMs, what: 'the command', signal: context.signal })
  const { signal } = bound
  try {
    const repo = await openRepo(context.repoPath)
    try {
      const asked = finding.mdns === true || (finding.bootstrap?.length ?? 0) > 0
      const bootstrap = asked ? finding.bootstrap : await rememberedPeers(repo)
      if (!asked && bootstrap?.length === 0)
        throw new UsageError('where to enter the network? --bootstrap ADDR, --bootstrap default, or --mdns')
      const kit = await createKit({
        ...finding,
        bootstrap,
        repo,
        dht: dhtOptions,
        stopTimeoutMs,
        provideEveryMs: false,
      })
      try {
        await kit.start()
        await kit.reachDht({ signal })
        if (kit.dht !== undefined) await work({ kit, dht: kit.dht, repo, signal })
      } finally {
        await kit.stop()
      }
    } finally {
      await repo.close()
    }
  } finally {
    bound.done()
  }
}

/** A step of a lookup: as a line, and as JSON. */
export function describeEvent(event: QueryEvent): { record: Record<string, unknown>; text: string } {
  if (event.type === 'query') {
    const { peer, hops, from } = event
    const by = from === undefined ? 'from the table' : `named by ${from}`
    const record = { event: 'query', peer: String(peer), hops, from: from === undefined ? null : String(from) }
    return { record, text: `ask     ${peer}  hop ${hops}, ${by}` }
  }
  if (event.type === 'answer') {
    const { peer, hops, closer } = event
    const elapsedMs = Math.round(event.elapsedMs)
    const record = { event: 'answer', peer: String(peer), hops, closer, elapsedMs }
    return { record, text: `answer  ${peer}  names ${closer}, ${elapsedMs} ms` }
  }
  if (event.type === 'failed') {
    const { peer, error } = event
    const record = { event: 'failed', peer: String(peer), error: { code: errorCode(error), message: error.message } }
    return { record, text: `failed  ${peer}  ${error.message}` }
  }
  const { reason, queries, heard } = event
  const record = { event: 'done', reason, queries, heard }
  return { record, text: `done    ${reason}: asked ${queries}, heard of ${heard}` }
}
