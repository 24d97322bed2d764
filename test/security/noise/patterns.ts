/* Noise rev 34 §7.4, §7.5 and appendix §18.1: the patterns that the vectors hold, in the spec's own notation. */
import type { Pattern, Token } from '../../../src/security/noise/handshake.ts'

const table: Record<string, string> = {
  N: 'e es',
  K: 'e es ss',
  X: 'e es s ss',
  NN: 'e / e ee',
  NK: 'e es / e ee',
  NX: 'e / e ee s es',
  XN: 'e / e ee / s se',
  XK: 'e es / e ee / s se',
  XX: 'e / e ee s es / s se',
  KN: 'e / e ee se',
  KK: 'e es ss / e ee se',
  KX: 'e / e ee se s es',
  IN: 'e s / e ee se',
  IK: 'e es s ss / e ee se',
  IX: 'e s / e ee se s es',
  NK1: 'e / e ee es',
  NX1: 'e / e ee s / es',
  X1N: 'e / e ee / s / se',
  X1K: 'e es / e ee / s / se',
  XK1: 'e / e ee es / s se',
  X1K1: 'e / e ee es / s / se',
  X1X: 'e / e ee s es / s / se',
  XX1: 'e / e ee s / es s se',
  X1X1: 'e / e ee s / es s / se',
  K1N: 'e / e ee / se',
  K1K: 'e es / e ee / se',
  KK1: 'e / e ee se es',
  K1K1: 'e / e ee es / se',
  K1X: 'e / e ee s es / se',
  KX1: 'e / e ee se s / es',
  K1X1: 'e / e ee s / se es',
  I1N: 'e s / e ee / se',
  I1K: 'e es s / e ee / se',
  IK1: 'e s / e ee se es',
  I1K1: 'e s / e ee es / se',
  I1X: 'e s / e ee s es / se',
  IX1: 'e s / e ee se s / es',
  I1X1: 'e s / e ee s / se es',
}

/** By the name in the protocol's: `IKpsk2`. One-way patterns have one letter. */
export function patternByName(name: string): Pattern & { oneWay: boolean } {
  const [, base = '', psk] = /^([A-Z0-9]+?)(?:psk(\d))?$/.exec(name) ?? []
  const text = table[base]
  if (text === undefined) throw new TypeError(`no pattern ${name}`)
  const messages = text.split(' / ').map((line) => line.split(' ') as Token[])
  // §9.3: psk0 begins the first message, pskN ends message N.
  if (psk === '0') messages[0]?.unshift('psk')
  else if (psk !== undefined) messages[Number(psk) - 1]?.push('psk')
  const letters = base.replaceAll(/\d/g, '')
  const oneWay = letters.length === 1
  const known: ('initiator' | 'responder')[] = []
  if (letters.startsWith('K')) known.push('initiator')
  if (oneWay || letters.endsWith('K')) known.push('responder')
  return { name, known, messages, oneWay }
}
