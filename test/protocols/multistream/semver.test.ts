import fc from 'fast-check'
import semver from 'semver'
import { describe, expect, it } from 'vitest'
import {
  compareVersions,
  parseProtocolId,
  parseRange,
  parseVersion,
  sameMajor,
  sameMinor,
  type AcceptVersion,
  type Version,
} from '../../../src/protocols/multistream/semver.ts'

function version(text: string): Version {
  const parsed = parseVersion(text)
  if (parsed === undefined) throw new Error(`${text} is no version`)
  return parsed
}

const number = fc.oneof(
  { weight: 20, arbitrary: fc.nat({ max: 3 }) },
  { weight: 2, arbitrary: fc.constantFrom(9, 10, 99) },
  { weight: 1, arbitrary: fc.constantFrom(Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER - 1, 2 ** 53) },
)
const identifier = fc.constantFrom(
  '0',
  '1',
  '2',
  '10',
  'a',
  'b',
  'beta',
  'x',
  '-',
  'a-1',
  '0a',
  '01',
  '9007199254740993',
)
const dotted = fc.array(identifier, { minLength: 1, maxLength: 3 }).map((all) => all.join('.'))
const tail = fc
  .tuple(fc.option(dotted, { freq: 3, nil: undefined }), fc.option(dotted, { freq: 8, nil: undefined }))
  .map(([pre, build]) => (pre === undefined ? '' : `-${pre}`) + (build === undefined ? '' : `+${build}`))
const versions = fc.tuple(number, number, number, tail).map(([a, b, c, rest]) => `${a}.${b}.${c}${rest}`)

const xr = fc.oneof({ weight: 6, arbitrary: number.map(String) }, fc.constantFrom('x', 'X', '*'))
const partial = fc.oneof(
  { weight: 4, arbitrary: versions },
  fc.tuple(xr, xr, xr, tail).map(([a, b, c, rest]) => `${a}.${b}.${c}${rest}`),
  fc.tuple(xr, xr).map(([a, b]) => `${a}.${b}`),
  xr,
)
const space = fc.constantFrom('', '', '', ' ', '  ')
const v = fc.constantFrom('', '', '', '', 'v')
const op = fc.constantFrom('', '', '<', '<=', '=', '>=', '>', '~', '~>', '^', '^')
const simple = fc.tuple(op, space, v, partial).map((all) => all.join(''))
const set = fc.oneof(
  { weight: 6, arbitrary: fc.array(simple, { maxLength: 3 }).map((all) => all.join(' ')) },
  fc.tuple(partial, partial).map(([a, b]) => `${a} - ${b}`.replaceAll(/(?<=[xX*](\.[\dxX*]+)?\.)\d+/g, 'x')),
)
const padded = fc.tuple(space, set, space).map((all) => all.join(''))
const ranges = fc.array(padded, { minLength: 1, maxLength: 3 }).map((all) => all.join('||'))

/** What node-semver says; undefined: that it is no range. */
function judged(range: string): semver.Range | undefined {
  try {
    return new semver.Range(range)
  } catch {
    return undefined
  }
}

function ours(range: string): ((theirs: Version) => boolean) | undefined {
  try {
    return parseRange(range)
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
    return undefined
  }
}

const runs = { numRuns: 3_000 }

describe('versions', () => {
  it('are those that node-semver takes, and in its order', () => {
    fc.assert(
      fc.property(versions, versions, (a, b) => {
        const [ourA, ourB] = [parseVersion(a), parseVersion(b)]
        expect([ourA !== undefined, ourB !== undefined]).toEqual([a, b].map((one) => semver.parse(one) !== null))
        if (ourA === undefined || ourB === undefined) return
        expect(Math.sign(compareVersions(ourA, ourB))).toBe(semver.compare(a, b))
        expect(ourA).toMatchObject({ major: semver.major(a), minor: semver.minor(a), patch: semver.patch(a) })
        expect(ourA.prerelease.join('.')).toBe((semver.prerelease(a) ?? []).join('.'))
      }),
      runs,
    )
  })

  it.each([
    '',
    '1',
    '1.2',
    'v1.2.3',
    '1.2.3.4',
    '01.2.3',
    '1.2.3-',
    '1.2.3-01',
    '1.2.3+',
    ' 1.2.3',
    '1.2.3\n',
    '-1.0.0',
  ])('are not %j', (text) => expect(parseVersion(text)).toBeUndefined())

  it('of more than 256 characters, or with numbers above 2^53-1, are none', () => {
    expect(parseVersion(`1.0.0-${'a'.repeat(250)}`)).toBeDefined()
    expect(parseVersion(`1.0.0-${'a'.repeat(251)}`)).toBeUndefined()
    expect(parseVersion('9007199254740992.0.0')).toBeUndefined()
    expect(parseVersion(`${'9'.repeat(200)}.0.0`)).toBeUndefined()
  })

  it('are the last segment of a protocol id', () => {
    expect(parseProtocolId('/app/x/1.10.0-rc.1')).toEqual({ name: '/app/x', version: version('1.10.0-rc.1') })
    for (const id of ['/app', '/app/1.0', '/1.0.0', '1.0.0', '/app/1.0.0/', '/app/v1.0.0', ''])
      expect(parseProtocolId(id)).toBeUndefined()
  })
})

describe('ranges', () => {
  it('are those that node-semver takes, and take the same versions', () => {
    fc.assert(
      fc.property(ranges, fc.array(versions, { minLength: 1, maxLength: 8 }), (range, candidates) => {
        const [theirs, mine] = [judged(range), ours(range)]
        expect(mine !== undefined, range).toBe(theirs !== undefined)
        for (const one of candidates) {
          const parsed = parseVersion(one)
          if (parsed === undefined || mine === undefined || theirs === undefined) continue
          expect(mine(parsed), `${one} in ${range}`).toBe(theirs.test(one))
        }
      }),
      runs,
    )
  })

  it('that node-semver refuses are refused', () => {
    const noise = fc.string({ unit: fc.constantFrom(...'0123.<>=~^|-x* va+'.split('')), maxLength: 12 })
    fc.assert(
      fc.property(noise, (text) => {
        // Not the other way round: what it takes beyond its own grammar (`0.0.*0`, `^=1`), we refuse.
        if (judged(text) === undefined) expect(ours(text), JSON.stringify(text)).toBeUndefined()
      }),
      { numRuns: 20_000 },
    )
  })

  it.each([
    ['^1.2.3', ['1.2.3', '1.10.0'], ['1.2.2', '2.0.0', '1.3.0-a', '2.0.0-0']],
    ['^0.2.3', ['0.2.3', '0.2.9'], ['0.3.0', '1.0.0']],
    ['^0.0.3', ['0.0.3'], ['0.0.4']],
    ['^0.0', ['0.0.0', '0.0.9'], ['0.1.0']],
    ['^0', ['0.0.0', '0.9.9'], ['1.0.0']],
    ['~1.2', ['1.2.0', '1.2.9'], ['1.3.0']],
    ['1.x || >=2.5.0 || 5.0.0 - 7.2.3', ['1.9.9', '2.5.0', '5.0.0'], ['2.4.9', '0.9.9']],
    ['>1.2', ['1.3.0'], ['1.2.9']],
    ['<=1.2', ['1.2.9'], ['1.3.0']],
    ['>=1.2.3-beta.2 <2', ['1.2.3-beta.10', '1.2.3', '1.9.0'], ['1.2.3-beta.1', '1.2.4-beta.3']],
    ['', ['0.0.0', '9.9.9'], ['1.0.0-a']],
    ['* || 1.0.0-a', ['1.0.0'], ['1.0.0-a']],
    ['1.0.0+build', ['1.0.0', '1.0.0+other'], ['1.0.1']],
  ])('%s takes %j, not %j', (range, fitting, others) => {
    const accepts = parseRange(range)
    expect(fitting.filter((one) => accepts(version(one)))).toEqual(fitting)
    expect(others.filter((one) => accepts(version(one)))).toEqual([])
  })

  it.each(['nonsense', '1.2.3.4', '>', '^', '||-', '>>1', '1.2.3 -2.0.0 -', '01.0.0'])(
    'throw a TypeError for %j',
    (text) => expect(() => parseRange(text)).toThrow(TypeError),
  )

  it('longer than 512 characters, or of more than 64 comparators, throw a RangeError', () => {
    expect(() => parseRange('1 '.repeat(257))).toThrow(RangeError)
    expect(parseRange('>1 '.repeat(64))(version('2.0.0'))).toBe(true)
    expect(() => parseRange('>1 '.repeat(65))).toThrow(RangeError)
  })
})

const at = (rule: AcceptVersion, theirs: string): boolean => rule(version(theirs), version('1.2.5'), '')

describe('the classic rules of servers', () => {
  it('take the same major and no minor above ours', () => {
    expect(['1.0.0', '1.2.9', '1.3.0', '2.0.0', '0.2.0'].map((one) => at(sameMinor, one))).toEqual([
      true,
      true,
      false,
      false,
      false,
    ])
  })

  it('take the same major', () => {
    expect(['1.0.0', '1.3.0', '2.0.0', '0.2.0'].map((one) => at(sameMajor, one))).toEqual([true, true, false, false])
  })
})
