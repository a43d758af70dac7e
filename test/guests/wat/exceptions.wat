;; Works only where exceptions are on: throws one and catches it.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (tag $error (param i32))
  ;; One buffer for fd_write: its address and its length.
  (data (i32.const 0) "\10\00\00\00\16\00\00\00")
  (data (i32.const 16) "hello from exceptions\n")

  (func $say
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))

  (func $throws
    (throw $error (i32.const 42)))

  (func (export "_start")
    (block $caught (result i32)
      (try_table (catch $error $caught)
        (call $throws))
      (unreachable))
    (if (i32.ne (i32.const 42))
      (then (unreachable)))
    (call $say))
)
