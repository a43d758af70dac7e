;; Writes its first argument and a line's end to standard output, and ends with 0: what the node program looks for.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (local $at i32)
    (if (call $sizes (i32.const 0) (i32.const 4)) (then (call $exit (i32.const 1))))
    ;; Pointers from 64 on, the strings from 1024 on; more than one argument is not given.
    (if (i32.ne (i32.load (i32.const 0)) (i32.const 2)) (then (call $exit (i32.const 2))))
    (if (i32.gt_u (i32.load (i32.const 4)) (i32.const 4096)) (then (call $exit (i32.const 3))))
    (if (call $args (i32.const 64) (i32.const 1024)) (then (call $exit (i32.const 4))))
    (local.set $at (i32.load (i32.const 68)))
    (i32.store (i32.const 16) (local.get $at))
    (block $end
      (loop $next
        (br_if $end (i32.eqz (i32.load8_u (local.get $at))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next)))
    ;; The string's zero becomes the line's end.
    (i32.store8 (local.get $at) (i32.const 10))
    (i32.store (i32.const 20)
      (i32.add (i32.sub (local.get $at) (i32.load (i32.const 16))) (i32.const 1)))
    (if (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24)) (then (call $exit (i32.const 5))))))
