;; A program in the text format: guests may be .wat files too.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  ;; One buffer for fd_write: its address and its length.
  (data (i32.const 0) "\10\00\00\00\15\00\00\00")
  (data (i32.const 16) "hello from hello-wat\n")

  (func $say
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))

  (func (export "_start")
    (call $say))
)
