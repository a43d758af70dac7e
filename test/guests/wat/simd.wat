;; Works only where vectors are on: adds four pairs at once.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  ;; One buffer for fd_write: its address and its length.
  (data (i32.const 0) "\10\00\00\00\10\00\00\00")
  (data (i32.const 16) "hello from simd\n")

  (func $say
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))

  (func (export "_start")
    (if
      (i32.ne
        (i32x4.extract_lane 3
          (i32x4.add (v128.const i32x4 1 2 3 4) (v128.const i32x4 10 20 30 38)))
        (i32.const 42))
      (then (unreachable)))
    (call $say))
)
