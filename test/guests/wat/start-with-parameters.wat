;; Its _start takes a parameter, so it is no entry point.
(module
  (memory (export "memory") 1)
  (func (export "_start") (param i32)))
