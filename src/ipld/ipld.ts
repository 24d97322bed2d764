/* The data model, its formats, selectors and walks: the public names of `rhiza/ipld`. */
export { codecs, Codecs, standardCodecs, type Codec, type DecodeLimits } from './codecs.ts'
export { decodeCbor, encodeCbor, type CborOptions } from './cbor.ts'
export { decodeJson, encodeJson, type JsonOptions } from './json.ts'
export { hashers, registerHasher, type Hasher } from './cid.ts'
export {
  childOf,
  isLink,
  isList,
  isMap,
  keysOf,
  kindOf,
  type IpldMap,
  type IpldNode,
  type Kind,
  type Segment,
} from './model.ts'
export {
  parseSelector,
  printSelector,
  registerSelector,
  selectorFromBytes,
  selectorToBytes,
  unregisterSelector,
  type ParseOptions,
  type SelectorKind,
  type SelectorLimits,
} from './selector-parse.ts'
export type { Match, Selector } from './selector.ts'
export {
  makeAllSelector,
  makeFieldSelector,
  makeLimitDepthSelector,
  makePathSelector,
  makeSimpleSelector,
  selectorFromText,
  selectors,
  type Clause,
} from './selectors.ts'
export { traverse, type Traversed, type TraverseOptions } from './traverse.ts'
export {
  walk,
  type Answer,
  type BytesView,
  type MapView,
  type Step,
  type Walk,
  type WalkBudget,
  type WalkOptions,
  type WalkSummary,
} from './walk.ts'
export { linksOf, prefetching, type PrefetchOptions } from './prefetch.ts'
