/*
 * Which ids a ProtocolQuery means on one connection. Loaded with the first query. Asks the peer for its capabilities
 * at most once for each list of protocols that identify brings.
 */
import { deadline, raceAbort } from '../deadline.ts'
import type { Env } from '../env.ts'
import { UnavailableError, type Attempt } from '../errors.ts'
import type { Connection, NewStreamOptions, ProtocolQuery, ProtocolStream } from '../host.ts'
import { askCapabilities } from '../protocols/capabilities/capabilities.ts'
import type { Capable } from '../protocols/capabilities/wire.ts'
import { compareVersions, parseProtocolId, parseRange, type Version } from '../protocols/multistream/semver.ts'

interface Choice {
  /** To be proposed in this order; at least one. */
  ids: readonly string[]
  /** What would have come before, and why it did not. */
  tried: readonly Attempt[]
}

/** What a listener hears of before it gives up on us. */
const maxCandidates = 64
/** Of a peer's ids, in the text of an error. */
const maxShown = 16

interface Wanted {
  name: string
  /** `/app ^1.0.0 with resume`. */
  text: string
  requires: readonly string[]
  candidates: readonly string[]
  versionOf(id: string): Version | undefined
  allows(version: Version): boolean
}

/** Throws TypeError or RangeError. */
function wanted({ name, range = '*', requires = [], candidates = [] }: ProtocolQuery): Wanted {
  if (!/^[^\s]*[^\s/]$/.test(name)) throw new TypeError(`protocol name ${JSON.stringify(name)}: want text like /app`)
  if (candidates.length > maxCandidates)
    throw new RangeError(`${candidates.length} candidates, at most ${maxCandidates} allowed`)
  const allows = typeof range === 'string' ? parseRange(range) : range
  const versionOf = (id: string): Version | undefined => {
    const parsed = id.startsWith(name) ? parseProtocolId(id) : undefined
    return parsed?.name === name ? parsed.version : undefined
  }
  const asked = typeof range === 'string' ? range : 'of the versions asked for'
  for (const id of candidates) {
    const version = versionOf(id)
    if (version === undefined || !allows(version)) throw new TypeError(`candidate ${id} is not ${name} ${asked}`)
  }
  const text = [name, asked, ...(requires.length > 0 ? [`with ${requires.join(', ')}`] : [])].join(' ')
  return { name, text, requires, candidates, versionOf, allows }
}

/** A peer's words may hold anything. */
const clip = (id: string): string => (/^[\x21-\x7e]{1,64}$/.test(id) ? id : JSON.stringify(id.slice(0, 64)))

function listed(ids: readonly string[]): string {
  const more = ids.length > maxShown ? ` and ${ids.length - maxShown} more` : ''
  return ids.slice(0, maxShown).map(clip).join(', ') + more
}

const asked = new WeakMap<Connection, { announced: readonly string[] | undefined; answer: Promise<Capable> }>()

/** An identify push brings a new list, and with it a new question. */
function capabilities(connection: Connection, env: Env, signal: AbortSignal): Promise<Capable> {
  const announced = connection.protocols
  const known = asked.get(connection)
  if (known !== undefined && known.announced === announced) return raceAbort(known.answer, signal)
  // Not bound to this caller: others may wait for the same answer, which has a deadline of its own.
  const answer = askCapabilities(connection, env)
  asked.set(connection, { announced, answer })
  answer.catch(() => {
    if (asked.get(connection)?.answer === answer) asked.delete(connection)
  })
  return raceAbort(answer, signal)
}

type Identifying = Connection & { readonly identifying: Promise<unknown> | undefined }
type Open = (ids: readonly string[], options: NewStreamOptions, tried: readonly Attempt[]) => Promise<ProtocolStream>

/**
 * Opens a stream by `open` under what `query` chooses, all within `timeoutMs`. Rejects with TypeError or RangeError (the
 * query), UnavailableError `no-protocol`, TimeoutError, signal.reason, or with how asking for capabilities failed.
 */
export async function openChosen(
  connection: Identifying,
  query: ProtocolQuery,
  options: NewStreamOptions & { timeoutMs: number },
  env: Env,
  open: Open,
): Promise<ProtocolStream> {
  const want = wanted(query)
  const { timeoutMs, signal } = options
  const since = env.clock.now()
  const bound = deadline({ env, timeoutMs, what: `choosing ${want.text}`, signal })
  let choice: Choice
  try {
    choice = await choose(connection, want, env, bound.signal)
  } finally {
    bound.done()
  }
  const left = Math.max(0, timeoutMs - env.clock.now() + since)
  try {
    return await open(choice.ids, { ...options, timeoutMs: left }, choice.tried)
  } catch (error) {
    if (!(error instanceof UnavailableError) || error.code !== 'no-protocol') throw error
    throw noProtocol(connection, want, [...choice.tried, ...error.tried], [])
  }
}

async function choose(connection: Identifying, want: Wanted, env: Env, signal: AbortSignal): Promise<Choice> {
  // A peer without identify is still a peer.
  if (connection.protocols === undefined) await raceAbort(Promise.allSettled([connection.identifying]), signal)
  const announced = connection.protocols ?? []
  const versions = announced.flatMap((id) => {
    const version = want.versionOf(id)
    return version === undefined ? [] : [{ id, version, fits: want.allows(version) }]
  })
  const fitting = versions
    .filter(({ fits }) => fits)
    .toSorted((a, b) => compareVersions(b.version, a.version))
    .map(({ id }) => id)
  let ids = fitting.length > 0 ? fitting : want.candidates
  const tried: Attempt[] = []
  if (want.requires.length > 0 && ids.length > 0) {
    const capable = await capabilities(connection, env, signal)
    const missing = (id: string): string[] => want.requires.filter((one) => capable.get(id)?.includes(one) !== true)
    const able = ids.findIndex((id) => missing(id).length === 0)
    const unable = able < 0 ? ids : ids.slice(0, able)
    tried.push(...unable.map((id) => ({ what: clip(id), reason: `lacks ${missing(id).join(', ')}` })))
    ids = ids.filter((id) => missing(id).length === 0)
  }
  // What is announced and then refused is the peer's contradiction: nothing else is tried behind it.
  if (ids.length > 0) return { ids: fitting.length > 0 ? ids.slice(0, 1) : ids, tried: tried.slice(0, maxShown) }
  const others = versions.filter(({ fits }) => !fits).map(({ id }) => ({ what: clip(id), reason: 'not asked for' }))
  const offers = versions.map(({ id }) => id)
  throw noProtocol(connection, want, [...tried, ...others].slice(0, maxShown), offers)
}

/** Says what was asked and what there is; `offers` are the peer's versions of it, [] where it has none. */
function noProtocol(
  { peer, protocols }: Connection,
  { text }: Wanted,
  tried: readonly Attempt[],
  offers: readonly string[],
): UnavailableError {
  const has =
    protocols === undefined
      ? 'it has not told what it speaks, name candidates'
      : `it offers ${listed(offers.length > 0 ? offers : protocols)}`
  return new UnavailableError('no-protocol', `${peer} does not speak ${text}; ${has}`, tried)
}
