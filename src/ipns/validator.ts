/* IPNS records as values of the DHT (ipns-record.md §Routing Record; kad-dht §Validator function): key `/ipns/<name>`. */
import type { Env } from '../env.ts'
import { PeerId } from '../peer/id.ts'
import { decodeRecord, selectRecord, validateRecord } from './record.ts'

const prefixBytes = '/ipns/'.length

export function ipnsValidator(env: Env): {
  validate(key: Uint8Array, value: Uint8Array): Promise<void>
  select(key: Uint8Array, values: readonly Uint8Array[]): number
} {
  return {
    async validate(key, value) {
      await validateRecord(PeerId.decode(key.subarray(prefixBytes)), value, env.clock.wallTime())
    },
    select: (_key, values) => selectRecord(values.map((value) => decodeRecord(value))),
  }
}
