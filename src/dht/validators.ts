/*
 * Which values a record may have and which of several is the best, by the first segment of its key
 * (libp2p kad-dht §Validator function). Here: public keys; ipns/validator.ts has names.
 */
import { concat, equals, fromUtf8, toUtf8 } from '../bytes.ts'
import { ProtocolError } from '../errors.ts'
import { PeerId } from '../peer/id.ts'

/** Binary: `/ipns/` or `/pk/` in front, then a peer id's bytes. */
export type RecordKey = Uint8Array

export interface Validator {
  /** Throws or rejects with ProtocolError for a value that must not stand under this key. */
  validate(key: RecordKey, value: Uint8Array): void | Promise<void>
  /** The index of the best of `values`, all of which are valid; there is at least one. */
  select(key: RecordKey, values: readonly Uint8Array[]): number
}

/** By namespace, without slashes: `pk`, `ipns`. */
export type Validators = Readonly<Record<string, Validator>>

/** The namespace of a record's key and what follows it; undefined for a key without one. */
function splitRecordKey(key: RecordKey): { namespace: string; rest: Uint8Array } | undefined {
  const end = key.indexOf(0x2f, 1)
  if (key[0] !== 0x2f || end < 2) return undefined
  const name = key.subarray(1, end)
  if (name.some((byte) => byte < 0x21 || byte > 0x7e)) return undefined
  return { namespace: toUtf8(name), rest: key.subarray(end + 1) }
}

export function recordKey(namespace: string, rest: Uint8Array): RecordKey {
  return concat([fromUtf8(`/${namespace}/`), rest])
}

/** A peer's public key under `/pk/` and its id, for ids that do not hold the key themselves. */
const publicKeyValidator: Validator = {
  validate(key, value) {
    const { rest = new Uint8Array(0) } = splitRecordKey(key) ?? {}
    if (!equals(PeerId.fromPublicKey(value).bytes, rest)) {
      throw new ProtocolError('bad-key', 'the public key does not belong to the peer id that the record is for')
    }
  },
  select: () => 0,
}

export const defaultValidators: Validators = { pk: publicKeyValidator }

/** The validator for `key`; throws ProtocolError when its namespace has none. */
export function validatorFor(validators: Validators, key: RecordKey): Validator {
  const { namespace = '' } = splitRecordKey(key) ?? {}
  const validator = Object.hasOwn(validators, namespace) ? validators[namespace] : undefined
  if (validator !== undefined) return validator
  const have = Object.keys(validators).join(', ')
  throw new ProtocolError('bad-message', `no validator for records of ${JSON.stringify(namespace)}; have ${have}`)
}
