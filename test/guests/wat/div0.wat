;; Traps in the instruction itself (Rust and Go check the divisor and end in their own way).
(module
  (memory (export "memory") 1)
  (func (export "_start")
    (drop (i32.div_s (i32.const 1) (i32.const 0)))))
