;; Works only where relaxed vectors are on: a multiplication and an addition in one.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  ;; One buffer for fd_write: its address and its length.
  (data (i32.const 0) "\10\00\00\00\18\00\00\00")
  (data (i32.const 16) "hello from relaxed-simd\n")

  (func $say
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))

  (func (export "_start")
    (if
      (f32.ne
        (f32x4.extract_lane 0
          (f32x4.relaxed_madd
            (v128.const f32x4 4 0 0 0)
            (v128.const f32x4 10 0 0 0)
            (v128.const f32x4 2 0 0 0)))
        (f32.const 42))
      (then (unreachable)))
    (call $say))
)
