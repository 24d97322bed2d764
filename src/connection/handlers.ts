/* Which protocol is served by whom: by its exact id, else by the version ranges of its name. */
import { fromUtf8 } from '../bytes.ts'
import type { Env } from '../env.ts'
import { LimitError } from '../errors.ts'
import type { HandleOptions, StreamHandler } from '../host.ts'
import { maxCapabilities, maxCapabilitiesBytes, maxCapabilityBytes } from '../limits.ts'
import { capabilitiesId } from '../protocols/capabilities/id.ts'
import {
  compareVersions,
  parseProtocolId,
  parseRange,
  parseVersion,
  type Version,
} from '../protocols/multistream/semver.ts'

export interface Handler {
  handler: StreamHandler
  options: HandleOptions
}

interface Versioned extends Handler {
  id: string
  version: Version
  accepts: (theirs: Version, id: string) => boolean
}

/** Throws TypeError or RangeError when `options` make no sense. */
function versioned(id: string, handler: StreamHandler, options: HandleOptions): Versioned | undefined {
  const { version: text, accepts } = options
  if (text === undefined) {
    if (accepts !== undefined) throw new TypeError(`accepts of ${id} wants a version beside it`)
    return undefined
  }
  const version = parseVersion(text)
  if (version === undefined) throw new TypeError(`version ${JSON.stringify(text)} of ${id}: want MAJOR.MINOR.PATCH`)
  const range = typeof accepts === 'string' ? parseRange(accepts) : undefined
  return {
    id: `${id}/${text}`,
    handler,
    options,
    version,
    accepts: range ?? ((theirs, proposed) => typeof accepts === 'function' && accepts(theirs, version, proposed)),
  }
}

const isCapability = (word: string): boolean => word !== '' && fromUtf8(word).length <= maxCapabilityBytes

function checkCapabilities(capabilities: readonly string[]): void {
  if (capabilities.length <= maxCapabilities && capabilities.every(isCapability)) return
  throw new RangeError(`capabilities: want at most ${maxCapabilities}, each of 1 to ${maxCapabilityBytes} bytes`)
}

/** Whether what has these options is served over `transport`. */
export const serves = ({ transports }: HandleOptions, transport: string): boolean =>
  transports === undefined || transports.includes(transport)

export class Handlers {
  readonly #byId = new Map<string, Handler>()
  /** By name, the highest version first. */
  readonly #versions = new Map<string, Versioned[]>()
  readonly #changed: () => void
  readonly #env: Env

  /** `changed` is called after protocols came or went. */
  constructor(changed: () => void, env: Env) {
    this.#changed = changed
    this.#env = env
  }

  /** Exact ids alone: ranges are not announced. Those that are served over `transport`, where there is one. */
  ids(transport?: string): string[] {
    const all = [...this.#byId]
    return (transport === undefined ? all : all.filter(([, { options }]) => serves(options, transport))).map(
      ([id]) => id,
    )
  }

  /** Under exactly this id. */
  has(protocol: string): boolean {
    return this.#byId.has(protocol)
  }

  find(protocol: string): Handler | undefined {
    return this.#byId.get(protocol) ?? (this.#versions.size === 0 ? undefined : this.#byVersion(protocol))
  }

  #byVersion(protocol: string): Handler | undefined {
    const proposed = parseProtocolId(protocol)
    if (proposed === undefined) return undefined
    return this.#versions.get(proposed.name)?.find(({ accepts }) => accepts(proposed.version, protocol))
  }

  add(protocol: string | readonly string[], handler: StreamHandler, options: HandleOptions): void {
    const names = typeof protocol === 'string' ? [protocol] : protocol
    const made = names.map((name): [name: string, id: string, Handler, Versioned?] => {
      const ofVersion = versioned(name, handler, options)
      return ofVersion === undefined ? [name, name, { handler, options }] : [name, ofVersion.id, ofVersion, ofVersion]
    })
    for (const [name, id] of made) {
      if (!/^[^\s]+$/.test(name)) throw new TypeError(`protocol id ${JSON.stringify(name)}: want text without spaces`)
      if (this.#byId.has(id)) throw new TypeError(`protocol ${id} has a handler; unhandle it first`)
    }
    const { capabilities = [] } = options
    checkCapabilities(capabilities)
    if (capabilities.length > 0)
      this.#serveCapabilities(
        made.map(([, id]) => id),
        capabilities,
      )
    for (const [name, id, entry, ofVersion] of made) {
      this.#byId.set(id, entry)
      if (ofVersion === undefined) continue
      const all = [...(this.#versions.get(name) ?? []), ofVersion]
      this.#versions.set(
        name,
        all.toSorted((a, b) => compareVersions(b.version, a.version)),
      )
    }
    this.#changed()
  }

  /** Ids, and names of which every version goes. */
  remove(protocol: string | readonly string[]): void {
    for (const id of typeof protocol === 'string' ? [protocol] : protocol) {
      this.#byId.delete(id)
      for (const { id: one } of this.#versions.get(id) ?? []) this.#byId.delete(one)
      this.#versions.delete(id)
      const name = id.slice(0, id.lastIndexOf('/'))
      const left = this.#versions.get(name)?.filter((one) => one.id !== id)
      if (left?.length === 0) this.#versions.delete(name)
      else if (left !== undefined) this.#versions.set(name, left)
    }
    if (this.#capabilities().size === 0) this.#byId.delete(capabilitiesId)
    this.#changed()
  }

  #capabilities(): Map<string, readonly string[]> {
    return new Map(
      [...this.#byId].flatMap(
        ([
          id,
          {
            options: { capabilities = [] },
          },
        ]) => (capabilities.length > 0 ? [[id, capabilities]] : []),
      ),
    )
  }

  /** Room for one more in the answer, and somebody to give it. */
  #serveCapabilities(ids: readonly string[], capabilities: readonly string[]): void {
    const all = [...this.#capabilities(), ...ids.map((id) => [id, capabilities] as const)]
    // With the prefixes of protobuf: two bytes for a capability, eight for an id and what belongs to it.
    const bytes = all.flat(2).reduce((sum, text) => sum + fromUtf8(text).length + 2, 6 * all.length)
    if (bytes > maxCapabilitiesBytes)
      throw new LimitError(
        'capabilityBytes',
        maxCapabilitiesBytes,
        bytes,
        `all capabilities take ${bytes} bytes, want less`,
      )
    if (this.#byId.has(capabilitiesId)) return
    const handler: StreamHandler = async (stream) => {
      const { answerCapabilities } = await import('../protocols/capabilities/capabilities.ts')
      await answerCapabilities(stream, this.#env, this.#capabilities())
    }
    this.#byId.set(capabilitiesId, { handler, options: { limited: true, maxInboundStreams: 8 } })
  }
}
