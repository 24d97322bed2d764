import { expect, it } from 'vitest'
import {
  ClosedError,
  LimitError,
  ProtocolError,
  StorageError,
  TimeoutError,
  UnavailableError,
  asError,
  errorCode,
} from '../src/errors.ts'

it('each error says its kind, its code and what to do with it', () => {
  const cause = new Error('why')
  const all = [
    [new ProtocolError('bad-frame', 'm', { cause, wireCode: 1 }), 'ProtocolError', 'bad-frame', 'm'],
    [new LimitError('maxStreams', 8, 9), 'LimitError', 'limit', 'maxStreams is 8, got 9; raise the option maxStreams'],
    [new ClosedError('gone', { by: 'remote', code: 0 }), 'ClosedError', 'closed', 'gone'],
    [new ClosedError('gone', { by: 'remote', code: 2, reason: cause }), 'ClosedError', 'reset', 'gone: why'],
    [
      new UnavailableError('no-address', 'cannot dial', [
        { what: 'a', reason: cause },
        { what: 'b', reason: 'shut' },
      ]),
      'UnavailableError',
      'no-address',
      'cannot dial (a: why; b: shut)',
    ],
    [new StorageError('disk-full', '/x', 'no space', { cause }), 'StorageError', 'disk-full', 'no space: /x'],
    [new TimeoutError('dialling', 50), 'TimeoutError', 'timeout', 'dialling took longer than 50 ms'],
  ] as const
  for (const [error, name, code, message] of all) {
    expect(error).toBeInstanceOf(Error)
    expect([error.name, error.code, errorCode(error)]).toEqual([name, code, code])
    expect(error.message).toContain(message)
    expect(String(error)).toBe(`${name}: ${error.message}`)
    expect(error.stack).toContain('errors.test.ts')
  }
  expect(all[0][0].cause).toBe(cause)
  expect(all[0][0].wireCode).toBe(1)
  expect(all[3][0].cause).toBe(cause)
  expect(all[4][0].tried.length).toBe(2)
})

it('the one thing that was tried is named once', () => {
  const one = [{ what: '/dns/x', reason: 'no such name' }]
  expect(new UnavailableError('unreachable', 'cannot reach /dns/x', one).message).toBe(
    'cannot reach /dns/x: no such name',
  )
  expect(new UnavailableError('unreachable', 'cannot reach /dns/xx', one).message).toContain(
    'xx (/dns/x: no such name)',
  )
  expect(new UnavailableError('unreachable', 'cannot reach it', one).message).toContain('it (/dns/x: no such name)')
})

it('others may throw anything', () => {
  const error = new TypeError('x')
  expect(asError(error)).toBe(error)
  for (const thrown of [undefined, null, 'text', 5, Symbol('s'), {}]) expect(asError(thrown)).toBeInstanceOf(Error)
  expect(asError(Object.create(null))).toBeInstanceOf(Error)
  expect(errorCode(error)).toBe(undefined)
  expect(errorCode('limit')).toBe(undefined)
})
