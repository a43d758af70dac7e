;; A program that never ends by itself, and a function that it wants called before it is ended.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  ;; Two buffers for fd_write, address and length of each; the text; whether the program itself has run.
  (data (i32.const 0) "\20\00\00\00\0b\00\00\00\30\00\00\00\08\00\00\00\40\00\00\00\12\00\00\00")
  (data (i32.const 32) "on-term is\20")
  (data (i32.const 48) "waiting\n")
  (data (i32.const 64) "told in its place\n")
  (global $ran (mut i32) (i32.const 0))

  (func $say (param $second i32)
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 128)))
    (drop (call $fd_write (i32.const 1) (local.get $second) (i32.const 1) (i32.const 128))))

  (func (export "_start")
    (global.set $ran (i32.const 1))
    (call $say (i32.const 8))
    (loop $for_ever (br $for_ever)))

  ;; In an instance of its own: where the program has run, this traps.
  (func (export "goodbye")
    (if (global.get $ran) (then unreachable))
    (call $say (i32.const 16)))

  ;; A goodbye that takes too long.
  (func (export "endless")
    (call $say (i32.const 16))
    (loop $for_ever (br $for_ever)))
)
