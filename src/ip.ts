/*
 * IP addresses as bytes: 4 (IPv4) or 16 (IPv6). Text is strict: dotted decimal without leading zeros, RFC 4291 §2.2 for
 * IPv6, printed as RFC 5952 wants it. An IPv4-mapped IPv6 address is judged as the IPv4 address in it.
 */

/** 4 bytes, or undefined when it is not an IPv4 address. */
export function parseIp4(text: string): Uint8Array | undefined {
  const parts = text.split('.')
  if (parts.length !== 4) return undefined
  const out = new Uint8Array(4)
  for (const [i, part] of parts.entries()) {
    if (!/^(0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255) return undefined
    out[i] = Number(part)
  }
  return out
}

/** 16 bytes, or undefined when it is not an IPv6 address. A zone (`%eth0`) does not belong to the address. */
export function parseIp6(text: string): Uint8Array | undefined {
  if (text.length > 45) return undefined
  const halves = text.split('::')
  if (halves.length > 2) return undefined
  const head = groups(halves[0] ?? '', halves.length === 1)
  const tail = groups(halves[1] ?? '', true)
  if (head === undefined || tail === undefined) return undefined
  const size = head.length + tail.length
  // "::" stands for at least one group of zeros
  if (halves.length === 1 ? size !== 16 : size > 14) return undefined
  const out = new Uint8Array(16)
  out.set(head)
  out.set(tail, 16 - tail.length)
  return out
}

/** The bytes of `a:b:c`; a dotted IPv4 address may be the last group. */
function groups(text: string, last: boolean): number[] | undefined {
  if (text === '') return []
  const out: number[] = []
  const parts = text.split(':')
  for (const [i, part] of parts.entries()) {
    if (/^[0-9a-fA-F]{1,4}$/.test(part)) {
      const group = Number.parseInt(part, 16)
      out.push(group >> 8, group & 255)
      continue
    }
    const ip4 = last && i === parts.length - 1 ? parseIp4(part) : undefined
    if (ip4 === undefined) return undefined
    out.push(...ip4)
  }
  return out
}

/** 4 or 16 bytes, or undefined when it is neither. */
export function parseIp(text: string): Uint8Array | undefined {
  return text.includes(':') ? parseIp6(text) : parseIp4(text)
}

export function formatIp4(bytes: Uint8Array): string {
  return bytes.join('.')
}

/** RFC 5952: lower case, the first longest run of two or more zero groups as "::", IPv4-mapped in mixed notation. */
export function formatIp6(bytes: Uint8Array): string {
  const ip4 = mappedIp4(bytes)
  if (ip4 !== undefined) return `::ffff:${formatIp4(ip4)}`
  const words = Array.from({ length: 8 }, (_, i) => ((bytes[2 * i] ?? 0) << 8) | (bytes[2 * i + 1] ?? 0))
  let start = 0
  let length = 1 // §4.2.2: a single zero group is not shortened
  for (let i = 0; i < 8; i++) {
    let end = i
    while (end < 8 && words[end] === 0) end++
    if (end - i > length) {
      start = i
      length = end - i
    }
    i = Math.max(i, end)
  }
  const hex = words.map((word) => word.toString(16))
  if (length < 2) return hex.join(':')
  return `${hex.slice(0, start).join(':')}::${hex.slice(start + length).join(':')}`
}

export function formatIp(bytes: Uint8Array): string {
  return bytes.length === 4 ? formatIp4(bytes) : formatIp6(bytes)
}

/** The IPv4 address in ::ffff:0:0/96 (RFC 4291 §2.5.5.2), or undefined. */
export function mappedIp4(bytes: Uint8Array): Uint8Array | undefined {
  if (bytes.length !== 16 || bytes[10] !== 255 || bytes[11] !== 255) return undefined
  for (let i = 0; i < 10; i++) if (bytes[i] !== 0) return undefined
  return bytes.subarray(12)
}

type Block = readonly [prefix: readonly number[], bits: number]

/** RFC 6890 and the IANA special-purpose registries: not reachable from the whole internet. */
const loopback4: readonly Block[] = [[[127], 8]]
const private4: readonly Block[] = [
  [[10], 8],
  [[172, 16], 12],
  [[192, 168], 16],
  [[100, 64], 10], // shared, carrier-grade NAT (RFC 6598)
]
const linkLocal4: readonly Block[] = [[[169, 254], 16]]
const other4: readonly Block[] = [
  [[0], 8],
  [[192, 0, 0], 24],
  [[192, 0, 2], 24], // documentation (RFC 5737)
  [[198, 51, 100], 24],
  [[203, 0, 113], 24],
  [[198, 18], 15], // benchmarking (RFC 2544)
  [[224], 3], // multicast, reserved, broadcast
]
const private6: readonly Block[] = [[[0xfc], 7]]
const linkLocal6: readonly Block[] = [[[0xfe, 0x80], 10]]
const other6: readonly Block[] = [
  [[0x20, 0x01, 0x0d, 0xb8], 32], // documentation (RFC 3849)
  [[0x3f, 0xff, 0x00], 20], // documentation (RFC 9637)
  [[0x01, 0, 0, 0, 0, 0, 0, 0], 64], // discard (RFC 6666)
  [[0x20, 0x01, 0x00, 0x02, 0, 0], 48], // benchmarking (RFC 5180)
  [[0xff], 8], // multicast
]

/** Do two addresses of one family share their first `bits`? Those of two families never do. */
export function samePrefix(a: Uint8Array, b: Uint8Array, bits: number): boolean {
  return a.length === b.length && startsWith(a, b, bits)
}

function startsWith(bytes: Uint8Array, prefix: ArrayLike<number>, bits: number): boolean {
  for (let i = 0; 8 * i < bits; i++) {
    const mask = 0xff & (0xff << Math.max(0, 8 - (bits - 8 * i)))
    if ((((bytes[i] ?? 0) ^ (prefix[i] ?? 0)) & mask) !== 0) return false
  }
  return true
}

function within(bytes: Uint8Array, blocks: readonly Block[]): boolean {
  return blocks.some(([prefix, bits]) => startsWith(bytes, prefix, bits))
}

function judge(bytes: Uint8Array, four: readonly Block[], six: readonly Block[]): boolean {
  const ip4 = bytes.length === 4 ? bytes : mappedIp4(bytes)
  return ip4 === undefined ? within(bytes, six) : within(ip4, four)
}

/** 0.0.0.0 or ::, the wildcard. */
export function isUnspecified(bytes: Uint8Array): boolean {
  return (mappedIp4(bytes) ?? bytes).every((byte) => byte === 0)
}

/** 127.0.0.0/8 or ::1. */
export function isLoopback(bytes: Uint8Array): boolean {
  if (bytes.length === 16 && mappedIp4(bytes) === undefined) {
    return bytes[15] === 1 && bytes.subarray(0, 15).every((byte) => byte === 0)
  }
  return judge(bytes, loopback4, [])
}

/** 169.254.0.0/16 or fe80::/10. */
export function isLinkLocal(bytes: Uint8Array): boolean {
  return judge(bytes, linkLocal4, linkLocal6)
}

/** RFC 1918, carrier-grade NAT, unique local (RFC 4193) and link-local: reachable by neighbours at most. */
export function isPrivate(bytes: Uint8Array): boolean {
  return isLinkLocal(bytes) || judge(bytes, private4, private6)
}

/** Reachable from the whole internet as far as the address tells. */
export function isGlobal(bytes: Uint8Array): boolean {
  return !isUnspecified(bytes) && !isLoopback(bytes) && !isPrivate(bytes) && !judge(bytes, other4, other6)
}
