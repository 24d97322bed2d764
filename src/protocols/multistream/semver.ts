/*
 * Versions (semver.org 2.0.0) and ranges in node-semver's grammar: comparators, hyphens, x-ranges, ~ and ^, ||; a
 * pre-release fits only where a comparator names one of the same three numbers. Bounded, for ids come from peers.
 * Left out: loose parsing, includePrerelease, a second `=` or `v` in front of a version, numbers behind an x in hyphens.
 */

export interface Version {
  readonly major: number
  readonly minor: number
  readonly patch: number
  /** `['beta', '2']` of `1.0.0-beta.2`; build metadata counts for nothing. */
  readonly prerelease: readonly string[]
}

/** Characters of a version, as in node-semver. */
const maxVersionLength = 256
const maxRangeLength = 512
const maxComparators = 64

const part = '(0|[1-9]\\d*'
const identifier = '(?:0|[1-9]\\d*|\\d*[a-zA-Z-][\\da-zA-Z-]*)'
const prerelease = `(?:-(${identifier}(?:\\.${identifier})*))?`
const build = '\\+[\\da-zA-Z-]+(?:\\.[\\da-zA-Z-]+)*'
const exact = new RegExp(`^${part})\\.${part})\\.${part})${prerelease}(?:${build})?$`)
const xr = `${part}|[xX*])`
const simple = new RegExp(`^(~>?|\\^|[<>]?=?)v?${xr}(?:\\.${xr}(?:\\.${xr}${prerelease})?)?$`)
const builds = new RegExp(build, 'g')

function versionOf(numbers: readonly number[], prerelease: readonly string[]): Version | undefined {
  const [major = 0, minor = 0, patch = 0] = numbers
  return numbers.every(Number.isSafeInteger) ? { major, minor, patch, prerelease } : undefined
}

/** Undefined for anything but a version: no `v`, no spaces, no leading zeros. */
export function parseVersion(text: string): Version | undefined {
  const found = text.length > maxVersionLength ? null : exact.exec(text)
  return found === null ? undefined : versionOf(found.slice(1, 4).map(Number), found[4]?.split('.') ?? [])
}

/** An id whose last segment is a version: `/app/1.4.0` is `/app` and 1.4.0. */
export function parseProtocolId(id: string): { name: string; version: Version } | undefined {
  const at = id.lastIndexOf('/')
  const version = at > 0 ? parseVersion(id.slice(at + 1)) : undefined
  return version && { name: id.slice(0, at), version }
}

/** semver.org §11.4. */
function comparePart(a: string, b: string): number {
  const [numberA, numberB] = [/^\d+$/.test(a), /^\d+$/.test(b)]
  if (numberA && numberB) return Number(a) - Number(b)
  return numberA !== numberB ? Number(numberB) - Number(numberA) : Number(a > b) - Number(a < b)
}

/** Below, at or above 0, as sort() wants it. semver.org §11. */
export function compareVersions(a: Version, b: Version): number {
  const numbers = a.major - b.major || a.minor - b.minor || a.patch - b.patch
  const [preA, preB] = [a.prerelease, b.prerelease]
  if (numbers !== 0 || preA.length * preB.length === 0) {
    return numbers || Number(preA.length === 0) - Number(preB.length === 0)
  }
  for (const [i, one] of preA.entries()) {
    const other = preB[i]
    const order = other === undefined ? 1 : comparePart(one, other)
    if (order !== 0) return order
  }
  return preA.length - preB.length
}

/** `<`, `<=`, `=`, `>=` or `>`, and what a version is compared with. */
type Comparator = readonly [op: string, version: Version]

const isX = (given: string | undefined): boolean => given === undefined || /[xX*]/.test(given)

/** What one word of a range means; undefined: it is none. */
function comparators(word: string): Comparator[] | undefined {
  const found = simple.exec(word)
  if (found === null || word.length > maxVersionLength) return undefined
  const [, op = '', ...parts] = found
  const given = parts.slice(0, 3)
  const x = given.findIndex(isX)
  const near = /[~^]/.test(op)
  if (!near && x >= 0 && !given.slice(x).every(isX)) return undefined
  const numbers = given.slice(0, x < 0 ? 3 : x).map(Number)
  const last = numbers.length - 1
  const pre = x < 0 ? parts[3]?.split('.') : undefined
  const list: [string, Version | undefined][] = []
  const low = (sign: string, behind: readonly string[] = []): unknown => list.push([sign, versionOf(numbers, behind)])
  /** The next one in which the number at `i` differs: 1.3.0 for 1.2.9 and 1. */
  const next = (sign: string, i: number, behind: readonly string[] = ['0']): unknown =>
    list.push([sign, versionOf([...numbers.slice(0, i), Number(numbers[i]) + 1], behind)])
  if (x === 0) {
    // `>*` and `<*` fit nothing.
    if (op === '<' || op === '>') low('<', ['0'])
  } else if (near) {
    const leading = numbers.findIndex((n) => n > 0)
    low('>=', pre)
    next('<', op !== '^' ? Math.min(last, 1) : leading < 0 ? last : leading)
  } else if (x < 0) {
    low(op, pre)
  } else if (op === '>') {
    next('>=', last, [])
  } else if (op === '<') {
    low('<', ['0'])
  } else {
    if (op !== '<=') low('>=')
    if (op !== '>=') next('<', last)
  }
  if (!list.every((one): one is [string, Version] => one[1] !== undefined)) return undefined
  // Says nothing, and as in node-semver it is then as if it were not there.
  return list.filter(
    ([sign, { major, minor, patch }]) => sign !== '>=' || major + minor + patch > 0 || pre !== undefined,
  )
}

function fits(version: Version, [op, other]: Comparator): boolean {
  const order = compareVersions(version, other)
  return order === 0 ? op === '' || op.includes('=') : op.startsWith(order < 0 ? '<' : '>')
}

const isRelease = ({ prerelease }: Version): boolean => prerelease.length === 0

function fitsAll(version: Version, all: readonly Comparator[]): boolean {
  const named = ({ major, minor, patch, prerelease }: Version): boolean =>
    prerelease.length > 0 && major === version.major && minor === version.minor && patch === version.patch
  return all.every((one) => fits(version, one)) && (isRelease(version) || all.some(([, other]) => named(other)))
}

/** The predicate that `text` stands for. Throws TypeError when it is no range, RangeError when it is too long. */
export function parseRange(text: string): (version: Version) => boolean {
  if (text.length > maxRangeLength) throw new RangeError(`version range of ${text.length} characters, at most 512`)
  const sets = text.split('||').map((one) =>
    one
      .replaceAll(builds, '')
      .replace(/^\s*(\S+)\s+-\s+(\S+)\s*$/, '>=$1 <=$2')
      .replaceAll(/([<>=~^])\s+/g, '$1')
      .split(/\s+/)
      .filter((word) => word !== '')
      .flatMap((word) => {
        const list = comparators(word)
        if (list === undefined)
          throw new TypeError(`${JSON.stringify(text)} is no version range: ${JSON.stringify(word)}`)
        return list
      }),
  )
  const count = sets.flat().length
  if (count > maxComparators) throw new RangeError(`version range of ${count} comparators, at most 64`)
  // What takes every release is the whole range then, as in node-semver: `* || 1.0.0-beta` takes no beta.
  return sets.some((all) => all.length === 0) ? isRelease : (version) => sets.some((all) => fitsAll(version, all))
}

/** Which of a peer's versions a handler of version `ours` takes; the proposed id comes last. */
export type AcceptVersion = (theirs: Version, ours: Version, id: string) => boolean

/** The rule of go-libp2p's MultistreamSemverMatcher: the same major, and no minor above ours. */
export const sameMinor: AcceptVersion = (theirs, ours) => theirs.major === ours.major && theirs.minor <= ours.minor

/** Any version of the same major. */
export const sameMajor: AcceptVersion = (theirs, ours) => theirs.major === ours.major
