/** Serves the app of a recipe, which the argument names, and prints the address. */
const { app } = await import(`./${process.argv[2]}.mjs`);

if (typeof app.inject === "function") {
  console.log(await app.listen({ port: 0, host: "127.0.0.1" }), "");
} else {
  const server = app.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port} `));
}
