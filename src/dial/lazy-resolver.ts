/* A resolver whose code is loaded when a name is first asked for. */
import type { Resolver } from './resolve.ts'

/** `load` is asked again where it failed. */
export function lazyResolver(load: () => Promise<Resolver>): Resolver {
  let made: Resolver | undefined
  const resolver = async (): Promise<Resolver> => (made ??= await load())
  return {
    resolve4: async (name, options) => (await resolver()).resolve4(name, options),
    resolve6: async (name, options) => (await resolver()).resolve6(name, options),
    resolveTxt: async (name, options) => (await resolver()).resolveTxt(name, options),
  }
}
