import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { decodeBase } from '../../src/multibase.ts'
import { dnsOverHttps } from '../../src/dial/doh.ts'
import { fakeEnv, systemEnv } from '../../src/env.ts'
import { UnavailableError } from '../../src/errors.ts'
import { answerTo, questionIn, record, type Question } from './dns-server.ts'

const servers: Server[] = []
const never = { signal: new AbortController().signal }

afterEach(() => {
  for (const server of servers.splice(0)) {
    server.close()
    server.closeAllConnections()
  }
})

type Reply = (question: Question, response: ServerResponse, request: IncomingMessage) => void

async function serve(reply: Reply): Promise<{ url: string; asked: Question[] }> {
  const asked: Question[] = []
  const server = createServer((request, response) => {
    const query = new URL(request.url ?? '', 'http://x').searchParams.get('dns') ?? ''
    const question = questionIn(decodeBase('base64url', query, 1_024))
    asked.push(question)
    reply(question, response, request)
  })
  servers.push(server)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/dns-query`, asked }
}

const send = (response: ServerResponse, bytes: Uint8Array, type = 'application/dns-message'): void => {
  response.writeHead(200, { 'content-type': type }).end(bytes)
}

const good: Reply = ({ name, type }, response) => {
  const data = type === 16 ? `text of ${name}` : new Uint8Array(type === 1 ? 4 : 16).fill(1)
  send(response, answerTo(name, type, [record(name, type, data, 60)]))
}

describe('DNS over HTTPS', () => {
  it('asks with GET and takes the answer', async () => {
    const headers: unknown[] = []
    const { url, asked } = await serve((question, response, request) => {
      headers.push([request.method, request.headers.accept])
      good(question, response, request)
    })
    const dns = dnsOverHttps({ endpoints: [url] })
    expect(await dns.resolveTxt('_dnsaddr.a.b', never)).toEqual(['text of _dnsaddr.a.b'])
    expect(await dns.resolve4('a.b', never)).toEqual(['1.1.1.1'])
    expect(await dns.resolve6('a.b', never)).toEqual(['101:101:101:101:101:101:101:101'])
    expect(asked).toEqual([
      { name: '_dnsaddr.a.b', type: 16 },
      { name: 'a.b', type: 1 },
      { name: 'a.b', type: 28 },
    ])
    expect(headers[0]).toEqual(['GET', 'application/dns-message'])
  })

  it('keeps an answer as long as it holds, and so many names', async () => {
    const { url, asked } = await serve(good)
    const env = { ...systemEnv(), clock: fakeEnv().clock }
    const dns = dnsOverHttps({ endpoints: [url], env, cacheEntries: 2, maxTtlMs: 30_000 })
    await dns.resolve4('a.b', never)
    await dns.resolve4('A.b', never)
    expect(asked).toHaveLength(1)
    await env.clock.advance(30_000)
    await dns.resolve4('a.b', never)
    expect(asked).toHaveLength(2)
    for (const name of ['c.d', 'e.f', 'a.b']) await dns.resolve4(name, never)
    expect(asked).toHaveLength(5)
  })

  it('asks the next server when one fails, and begins with the one that answered the next time', async () => {
    const bad = await serve((_question, response) => void response.writeHead(500).end('no'))
    const page = await serve((_question, response) => send(response, new Uint8Array(9), 'text/html'))
    const liar = await serve((_question, response) => send(response, answerTo('other.b', 1, [])))
    const works = await serve(good)
    const dns = dnsOverHttps({ endpoints: [bad, page, liar, works].map(({ url }) => url) })
    expect(await dns.resolve4('a.b', never)).toEqual(['1.1.1.1'])
    expect(await dns.resolve4('c.d', never)).toEqual(['1.1.1.1'])
    expect([bad, page, liar, works].map(({ asked }) => asked.length)).toEqual([1, 1, 1, 2])
  })

  it('tells of every server that failed', async () => {
    const closed = await serve(good)
    servers.at(-1)?.close()
    const page = await serve((_question, response) => send(response, new Uint8Array(9), 'text/html'))
    const dns = dnsOverHttps({ endpoints: [closed.url, page.url] })
    await expect(dns.resolve4('a.b', never)).rejects.toSatisfy(
      (error) =>
        error instanceof UnavailableError &&
        error.tried.map(({ what }) => what).join() === [closed.url, page.url].join() &&
        error.message.includes('HTTP 200, text/html, want application/dns-message'),
    )
  })

  it('reads no more than a DNS message can be', async () => {
    let sent = 0
    const { url } = await serve((_question, response) => {
      response.writeHead(200, { 'content-type': 'application/dns-message' })
      const more = (): void => {
        while (!response.destroyed && sent < 1e9) {
          sent += 16_384
          if (!response.write(new Uint8Array(16_384))) return
        }
      }
      response.on('drain', more)
      more()
    })
    await expect(dnsOverHttps({ endpoints: [url] }).resolve4('a.b', never)).rejects.toThrow('maxAnswerBytes is 65535')
    expect(sent).toBeLessThan(1e8)
  })

  it('waits so long for a server that never answers, then asks the next', async () => {
    const silent = await serve(() => {})
    const works = await serve(good)
    const env = { ...systemEnv(), clock: fakeEnv().clock }
    const asking = dnsOverHttps({ endpoints: [silent.url, works.url], env }).resolve4('a.b', never)
    await expect.poll(() => silent.asked.length).toBe(1)
    await env.clock.advance(2_000)
    expect(await asking).toEqual(['1.1.1.1'])
    expect(env.clock.waiting).toBe(0)
  })

  it('ends at once with its signal', async () => {
    const silent = await serve(() => {})
    const controller = new AbortController()
    const env = { ...systemEnv(), clock: fakeEnv().clock }
    const asking = dnsOverHttps({ endpoints: [silent.url], env }).resolve4('a.b', { signal: controller.signal })
    const reason = new Error('changed my mind')
    await expect.poll(() => silent.asked.length).toBe(1)
    controller.abort(reason)
    await expect(asking).rejects.toBe(reason)
    expect(env.clock.waiting).toBe(0)
  })

  it('wants a server', () => {
    expect(() => dnsOverHttps({ endpoints: [] })).toThrow(TypeError)
  })
})
