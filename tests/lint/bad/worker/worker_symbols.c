/* worker_symbols: what the worker must not call. */
int pool_open(void);
int worker_serve(void);
int worker_serve(void)
{
    return pool_open();
}
