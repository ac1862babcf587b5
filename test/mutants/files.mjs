/** Files of tests, for `first` of the package's mutants. */
export const BOARD = ["test/unit/board.test.ts"];
export const LOCK_FILE = ["test/unit/lock-file.test.ts"];
export const FILE = ["test/unit/file.test.ts"];
export const MAPPINGS = ["test/unit/mappings.test.ts"];
export const PRIVATE_FILE = ["test/unit/private-file.test.ts"];
export const ERRORS = ["test/unit/errors.test.ts"];
export const CONFORMANCE = ["test/contract/conformance.test.ts"];
export const CODEC = ["test/unit/codec.test.ts"];
export const HOSTILE = ["test/hostile/hostile.test.ts"];
export const RESOURCES = ["test/resources/resources.test.ts"];
export const SEATS = ["test/unit/seats.test.ts"];
export const APPLICATION = ["test/host/application.test.ts"];
export const PLACES = ["test/host/places.test.ts"];
export const OVERFLOW = ["test/host/overflow.test.ts"];
export const CLOCKS = ["test/host/clocks.test.ts"];
export const NATIVE = ["test/host/native.test.ts"];
export const OUTSIDE = ["test/hostile/outside.test.ts"];
