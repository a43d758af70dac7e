;; Works only where garbage collected types are on: a structure on the host's heap.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (type $pair (struct (field i32) (field i32)))
  ;; One buffer for fd_write: its address and its length.
  (data (i32.const 0) "\10\00\00\00\0e\00\00\00")
  (data (i32.const 16) "hello from gc\n")

  (func $say
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))

  (func (export "_start")
    (local $pair (ref null $pair))
    (local.set $pair (struct.new $pair (i32.const 40) (i32.const 2)))
    (if
      (i32.ne
        (i32.const 42)
        (i32.add
          (struct.get $pair 0 (local.get $pair))
          (struct.get $pair 1 (local.get $pair))))
      (then (unreachable)))
    (call $say))
)
