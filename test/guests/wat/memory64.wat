;; Works only where 64-bit memories are on: a second memory with 64-bit addresses.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (memory $wide i64 2)
  ;; One buffer for fd_write: its address and its length.
  (data (i32.const 0) "\10\00\00\00\14\00\00\00")
  (data (i32.const 16) "hello from memory64\n")

  (func $say
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))

  (func (export "_start")
    (i32.store $wide (i64.const 70000) (i32.const 42))
    (if (i32.ne (i32.load $wide (i64.const 70000)) (i32.const 42))
      (then (unreachable)))
    (call $say))
)
