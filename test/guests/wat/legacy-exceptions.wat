;; The exceptions of before the standard: no longer wasm, so validation refuses them.
(module
  (memory (export "memory") 1)
  (tag $error)
  (func (export "_start")
    try
      throw $error
    catch $error
    end))
