// `node clients.mjs NAME` reads a call as JSON on standard input and writes {"vectors"} or {"error", "message"}.
import { readFileSync } from "node:fs";

const CLIENTS = {
  async openai({ url, key, model, texts }) {
    const { default: OpenAI } = await import("openai");
    const client = new OpenAI({ baseURL: url + "/v1", apiKey: key, maxRetries: 0 });
    const found = await client.embeddings.create({ model, input: texts, dimensions: 64, task: "separation" });
    return found.data.map((row) => row.embedding);
  },

  async "jina-ai-provider"({ url, key, model, texts, late }) {
    const { embedMany } = await import("ai");
    const { createJina } = await import("jina-ai-provider");
    const jina = createJina({ baseURL: url + "/v1", apiKey: key });
    const providerOptions = { jina: { inputType: "retrieval.passage", outputDimension: 64, lateChunking: late } };
    const asked = { model: jina.textEmbeddingModel(model), values: texts, providerOptions, maxRetries: 0 };
    return (await embedMany(asked)).embeddings;
  },

  async "@ai-sdk/openai"({ url, key, model, texts }) {
    const { embedMany } = await import("ai");
    const { createOpenAI } = await import("@ai-sdk/openai");
    const openai = createOpenAI({ baseURL: url + "/v1", apiKey: key });
    const providerOptions = { openai: { dimensions: 64 } };
    const asked = { model: openai.embedding(model), values: texts, providerOptions, maxRetries: 0 };
    return (await embedMany(asked)).embeddings;
  },

  async "@huggingface/inference"({ url, key, texts }) {
    const { InferenceClient } = await import("@huggingface/inference");
    const client = new InferenceClient(key, { endpointUrl: url });
    return client.featureExtraction({ inputs: texts, prompt_name: "classification" });
  },

  async "@langchain/community"({ url, key, model, texts }) {
    const { JinaEmbeddings } = await import("@langchain/community/embeddings/jina");
    const client = new JinaEmbeddings({ apiKey: key, model, dimensions: 384 });
    client.baseUrl = url + "/v1/embeddings";
    return client.embedDocuments(texts);
  },

  async "@langchain/openai"({ url, key, model, texts }) {
    const { OpenAIEmbeddings } = await import("@langchain/openai");
    const client = new OpenAIEmbeddings({ configuration: { baseURL: url + "/v1" }, apiKey: key, model, maxRetries: 0 });
    return client.embedDocuments(texts);
  },

  async "@chroma-core/jina"({ url, key, model, texts, late }) {
    const { JinaEmbeddingFunction } = await import("@chroma-core/jina");
    const options = { task: "text-matching", dimensions: 64, lateChunking: late, embeddingType: "float" };
    const client = new JinaEmbeddingFunction({ apiKey: key, modelName: model, ...options });
    client.url = url + "/v1/embeddings";
    return client.generate(texts);
  },

  async "@llamaindex/jinaai"({ url, key, model, texts, late }) {
    const { JinaAIEmbedding } = await import("@llamaindex/jinaai");
    const options = { baseURL: url + "/v1/embeddings", task: "retrieval.query", dimensions: 64, late_chunking: late };
    return new JinaAIEmbedding({ apiKey: key, model, ...options }).getTextEmbeddings(texts);
  },
};

let told;
try {
  told = { vectors: await CLIENTS[process.argv[2]](JSON.parse(readFileSync(0, "utf8"))) };
} catch (error) {
  told = { error: error.name === "Error" ? error.constructor.name : error.name, message: error.message };
}
process.stdout.write(JSON.stringify(told));
