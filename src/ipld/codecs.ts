/*
 * Block formats by their multicodec: a block's bytes to the data model and back. What each reads and refuses stands in
 * cbor.ts, json.ts and dag-pb-node.ts.
 */
import { UnavailableError } from '../errors.ts'
import { blockBytes } from '../limits.ts'
import { decodeCbor, encodeCbor, tooLarge, type DecodeLimits } from './cbor.ts'
import { codec as codes, type CID } from './cid.ts'
import { decodeDagPb, encodeDagPb } from './dag-pb-node.ts'
import { decodeJson, encodeJson } from './json.ts'
import type { IpldNode } from './model.ts'

export type { DecodeLimits } from './cbor.ts'

/** A format of blocks. */
export interface Codec {
  /** As in the multicodec table: `dag-cbor`. */
  readonly name: string
  /** As in the multicodec table: 0x71. */
  readonly code: number
  /** Throws ProtocolError: `bad-block`, or `oversized` above a limit. What it gives may share memory with `bytes`. */
  decode(bytes: Uint8Array): IpldNode
  /** Throws TypeError or RangeError for a node that the format has no form for. */
  encode(node: IpldNode): Uint8Array
}

/** The formats of this package, for blocks within `limits` (defaults: see DecodeLimits). */
export function standardCodecs(limits: DecodeLimits = {}): Codec[] {
  const { maxBytes = blockBytes } = limits
  return [
    {
      name: 'raw',
      code: codes.raw,
      decode(bytes) {
        if (bytes.length > maxBytes) throw tooLarge('bytes', bytes.length, maxBytes)
        return bytes
      },
      encode(node) {
        if (node instanceof Uint8Array) return node
        throw new TypeError('raw has bytes alone')
      },
    },
    { name: 'dag-pb', code: codes.dagPb, decode: (bytes) => decodeDagPb(bytes, maxBytes), encode: encodeDagPb },
    {
      name: 'dag-cbor',
      code: codes.dagCbor,
      decode: (bytes) => decodeCbor(bytes, limits),
      encode: (node) => encodeCbor(node),
    },
    {
      name: 'dag-json',
      code: codes.dagJson,
      decode: (bytes) => decodeJson(bytes, limits),
      encode: (node) => encodeJson(node),
    },
    {
      name: 'json',
      code: codes.json,
      decode: (bytes) => decodeJson(bytes, { ...limits, dag: false }),
      encode: (node) => encodeJson(node, { dag: false }),
    },
    {
      name: 'cbor',
      code: codes.cbor,
      decode: (bytes) => decodeCbor(bytes, { ...limits, links: false }),
      encode: (node) => encodeCbor(node, { links: false, sorted: false }),
    },
  ]
}

/** A table of formats: the standard ones and your own. */
export class Codecs {
  readonly #byCode = new Map<number, Codec>()
  readonly #byName = new Map<string, Codec>()

  /** `extra` come on top of the standard ones, or in their place where they have the same code. */
  constructor(extra: Iterable<Codec> = []) {
    for (const codec of standardCodecs()) this.register(codec)
    for (const codec of extra) this.register(codec)
  }

  /** Takes the place of one with the same code. Throws TypeError where the name is another one's. */
  register(codec: Codec): void {
    const { code, name } = codec
    const namesake = this.#byName.get(name)
    if (namesake !== undefined && namesake.code !== code)
      throw new TypeError(`codec ${name} has the code 0x${namesake.code.toString(16)} already`)
    const before = this.#byCode.get(code)
    if (before !== undefined) this.#byName.delete(before.name)
    this.#byCode.set(code, codec)
    this.#byName.set(name, codec)
  }

  get(code: number): Codec | undefined {
    return this.#byCode.get(code)
  }

  byName(name: string): Codec | undefined {
    return this.#byName.get(name)
  }

  names(): string[] {
    return [...this.#byName.keys()]
  }

  /** The block that `cid` names; whether it hashes to it is not asked. UnavailableError `unsupported` without a codec. */
  decode(cid: CID, bytes: Uint8Array): IpldNode {
    const codec = this.#byCode.get(cid.code)
    if (codec === undefined)
      throw new UnavailableError(
        'unsupported',
        `no codec for 0x${cid.code.toString(16)} of ${cid}: have ${this.names().join(', ')}`,
      )
    return codec.decode(bytes)
  }
}

/** The table that is used where none is given. What is registered here is known everywhere. */
export const codecs: Codecs = /* @__PURE__ */ new Codecs()
