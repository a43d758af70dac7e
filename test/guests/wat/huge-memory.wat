;; Asks for 4 GiB from the start: instantiation fails where the memory limit is lower.
(module
  (memory (export "memory") 65536)
  (func (export "_start")))
