;; Asks for what no host has: the error has to name `env` and `nope`.
(module
  (import "env" "nope" (func $nope))
  (memory (export "memory") 1)
  (func (export "_start")
    (call $nope)))
