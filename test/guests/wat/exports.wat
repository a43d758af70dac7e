;; No _start: functions to be called by name, as the entry point `#add_nothing` does.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  ;; One buffer for fd_write: its address and its length.
  (data (i32.const 0) "\10\00\00\00\13\00\00\00")
  (data (i32.const 16) "hello from exports\n")

  (func $say
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))

  (func (export "add_nothing"))
  (func (export "say")
    (call $say))
  (func (export "fails")
    (unreachable))
  ;; Takes parameters, and returns one: neither can be an entry point.
  (func (export "add") (param i32 i32) (result i32)
    (i32.add (local.get 0) (local.get 1)))
  (func (export "answer") (result i32)
    (i32.const 42))
  (global (export "not_a_function") i32 (i32.const 1))
)
