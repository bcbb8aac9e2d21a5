"""nbgrader's settings for the course; it reads them in the folder where it is called."""

c = get_config()  # noqa: F821

c.CourseDirectory.course_id = "batch_norm"
c.ClearSolutions.code_stub = {"python": "# your code here\nraise NotImplementedError"}
c.ClearSolutions.text_stub = "*Your answer here.*"
c.Execute.timeout = 60  # seconds for a cell; a call inside a test has 5, see grading.py
c.LimitOutput.max_lines = 200
