/* Browsers have no UDP. */
import { UnavailableError } from '../../errors.ts'
import type { Discovery } from '../discovery.ts'
import type { MdnsTuning } from './session.ts'

export type MdnsOptions = MdnsTuning & { interfaces?: readonly string[] }

/** Throws UnavailableError `unsupported`. */
export function mdns(_options?: MdnsOptions): Discovery {
  throw new UnavailableError('unsupported', 'there is no multicast DNS in browsers; name bootstrap peers')
}
